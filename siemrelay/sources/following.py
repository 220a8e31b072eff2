"""One file being read: its next records, its growth, and when it is over."""

from __future__ import annotations

import os
import time
from typing import Final

import msgspec

from siemrelay.sources.content import Content, GzipContent, PlainContent, open_regular
from siemrelay.sources.cutting import MAX_WHOLE_BYTES, cut
from siemrelay.sources.generations import age, family, is_compressed, is_rotated_name
from siemrelay.sources.identity import Identity, showable

# What is read at once while catching up: a thousand audit events, so that a thread hop costs
# little, and only milliseconds of work between two turns of the event loop.
CHUNK_BYTES: Final = 1 << 19
# The least to ask for: a line that grew while we looked comes with it.
_MIN_READ_BYTES: Final = 16 << 10
# An incomplete line up to this long is simply read again when it has grown; of a longer one only
# the new part is searched for its end, or a line written in small pieces would cost its square.
_REREAD_BYTES: Final = 64 << 10


class ContentChanged(Exception):
    """What was read from the file is no longer in it: it was truncated or written anew."""


class Run(msgspec.Struct, frozen=True, gc=False):
    """What one read gave: `count` records in `payload`, which may be none."""

    payload: bytes
    count: int
    part: int | None = None
    oversize: tuple[int, ...] = ()


class Followed:
    """A file of this source. Blocks on the disk in `open` and `read`; tells no one anything."""

    def __init__(self, path: str, identity: Identity, *, max_record_bytes: int) -> None:
        self.identity = identity
        self.family = family(path)
        self.compressed = is_compressed(path)
        self.content: Content | None = None
        self.matched = True
        """Whether its present name matches the globs."""
        self.deleted = False
        self.undecided = False
        """Whether it may yet turn out to be a copy of a file already read."""
        self.ready = True
        """Whether there may be something to read."""
        self.size = 0
        self.mtime_s = 0.0
        self.changed_at = time.monotonic()
        self.rotated_at: float | None = None
        self._max_record_bytes = max_record_bytes
        self._stamp: tuple[int, int] | None = None
        self._searched = identity.offset
        """Up to here no line feed follows the offset."""
        self.moved_to(path)

    def moved_to(self, path: str) -> None:
        """Take note of the file's present name."""
        self.path = path
        self.identity.path = showable(path)
        self.age = age(path)

    def searched_to_offset(self) -> None:
        """Call when `identity` was moved."""
        self._searched = self.identity.offset

    @property
    def birth(self) -> tuple[bool, int, bool, tuple[int, int, str]]:
        """Sorts files that were found at the same time, the older ones first.

        The log itself is the youngest, whatever its time. gzip gives its result the time of the
        original, which is read first if it is still there.
        """
        changed_ns = self._stamp[1] if self._stamp else 0
        return not is_rotated_name(self.path), changed_ns, self.compressed, self.age

    @property
    def unread(self) -> int:
        """Bytes not yet read; of a gzip file the compressed ones, roughly."""
        if self.identity.finished_size is not None:
            return 0
        if isinstance(self.content, GzipContent):
            return max(1, self.size - self.content.consumed)
        return max(0, self.size - self.identity.offset)

    @property
    def idle(self) -> bool:
        """Whether everything in it was read."""
        return not (self.ready or self.undecided or self.unread)

    def has_reached(self, size: int) -> bool:
        """Whether everything up to that size of the file was read."""
        if self.compressed:
            return self.identity.finished_size is not None
        return self.identity.offset >= size

    def adopt(self, fd: int) -> Content:
        """Read from this descriptor from now on; closes it when done."""
        self.close()
        self.content = GzipContent(fd) if self.compressed else PlainContent(fd)
        return self.content

    def reopen(self) -> Content:
        """Open the file again. Raises OSError; FileNotFoundError if its name has another file."""
        fd, status = open_regular(self.path)
        if (status.st_dev, status.st_ino) != (self.identity.device, self.identity.inode):
            os.close(fd)
            raise FileNotFoundError(f"{self.path} is another file now")
        content = self.adopt(fd)
        if self.compressed:
            self.identity.finished_size = None
            self.identity.move_to(content, self.identity.offset)
        return content

    def look(self) -> None:
        """See whether the open file has changed."""
        if self.content is not None:
            self.saw(os.fstat(self.content.fd))

    def saw(self, status: os.stat_result) -> None:
        """Take note of the file's status."""
        if status.st_nlink == 0 and not self.deleted:
            self.deleted = True
            self.changed_at = time.monotonic()
        if (stamp := (status.st_size, status.st_mtime_ns)) == self._stamp:
            return
        self._stamp = stamp
        self.size, self.mtime_s = status.st_size, status.st_mtime_ns / 1e9
        self.changed_at = time.monotonic()
        self.ready = self.identity.finished_size != self.size

    def read_in_memory(self, *, finish: bool) -> Run | None:
        """As `read`; raises BlockingIOError, with nothing read, if the disk must be waited for."""
        content = self.content
        if not isinstance(content, PlainContent):
            raise BlockingIOError
        content.in_memory_only = True
        try:
            return self.read(finish=finish)
        finally:
            content.in_memory_only = False

    def read(self, *, finish: bool) -> Run | None:
        """The next records; None when nothing whole is to be had now.

        `finish`: take an incomplete end as it is. Complete gzip files end by themselves; the last
        read of one gives an empty run, so that its position can be stored.
        Raises: ContentChanged (let go of it and look again), OSError (try again later).
        """
        content, identity = self.content or self.reopen(), self.identity
        if isinstance(content, PlainContent):
            if not identity.still_in(content):
                raise ContentChanged(self.path)
            run = self._next(content, finish=finish)
            self.ready = run is not None and identity.offset < self.size
            return run
        if identity.finished_size is not None:
            # It grew after its end: whatever was appended lies behind what was read.
            identity.finished_size = None
            content.rewind()
            identity.move_to(content, identity.offset)
        content.keep_from(identity.offset)
        if finish:
            content.give_up_at_end()
        run = self._next(content, finish=False)
        if run is None and (content.complete or content.damage is not None):
            run = self._next(content, finish=True)
            if run is None:
                identity.finished_size = self.size
                run = Run(b"", 0)
        self.ready = run is not None and identity.finished_size is None
        return run

    def _next(self, content: Content, *, finish: bool) -> Run | None:
        identity = self.identity
        if identity.part or self._searched - identity.offset > _REREAD_BYTES:
            return self._long_line(content, finish=finish)
        want = CHUNK_BYTES
        if isinstance(content, PlainContent):
            want = min(want, max(_MIN_READ_BYTES, self.size - identity.offset))
        chunk = content.pread(want, identity.offset)
        made = cut(chunk, self._max_record_bytes)
        if made is not None:
            identity.advance(made.consumed)
            self._searched = identity.offset
            return Run(made.payload, made.count, None, made.oversize)
        self._searched = identity.offset + len(chunk)
        if len(chunk) == want or finish:
            return self._long_line(content, finish=finish)
        return None

    def _long_line(self, content: Content, *, finish: bool) -> Run | None:
        """One line whose end is not in the first chunk, or a part of it."""
        start = self.identity.offset
        while True:
            if self._searched - start > MAX_WHOLE_BYTES:
                return self._part(content)
            chunk = content.pread(CHUNK_BYTES, self._searched)
            found = chunk.find(b"\n")
            if found >= 0:
                if self._searched + found - start > MAX_WHOLE_BYTES:
                    return self._part(content)
                return self._line(content, self._searched + found - start, ended=True)
            self._searched += len(chunk)
            if not chunk:
                some = finish and self._searched > start
                return self._line(content, self._searched - start, ended=False) if some else None

    def _part(self, content: Content) -> Run | None:
        piece = content.pread(MAX_WHOLE_BYTES, self.identity.offset)
        if len(piece) < MAX_WHOLE_BYTES:
            return None  # truncated under our hands; the next read finds out
        self.identity.advance(piece)
        self.identity.part += 1
        self._searched = max(self._searched, self.identity.offset)
        return Run(piece + b"\n", 1, self.identity.part)

    def _line(self, content: Content, length: int, *, ended: bool) -> Run | None:
        identity = self.identity
        data = content.pread(length + ended, identity.offset)
        if len(data) < length + ended:
            return None  # truncated under our hands; the next read finds out
        identity.advance(data)
        self._searched = identity.offset
        line, parts = data if ended else data + b"\n", identity.part
        identity.part = 0
        if parts:
            return Run(line, 1, parts + 1, (parts * MAX_WHOLE_BYTES + length,))
        if line == b"\r\n":
            return Run(b"", 0)
        return Run(line, 1, None, (length,) if length > self._max_record_bytes else ())

    def try_later(self) -> None:
        """After an error: close it; the next look at it makes it ready again."""
        self.close()
        self._stamp = None
        self.ready = False

    def close(self) -> None:
        """Let go of the descriptor; `reopen` gets it back."""
        if self.content is not None:
            self.content.close()
            self.content = None
