"""One file being followed: its next records, its growth, and when everything in it was read."""

# ruff: noqa: PTH120
# Paths are text here: a survey handles them by the thousand, and Path costs tenfold.
from __future__ import annotations

import os.path
import time
from collections.abc import Callable
from typing import Final

from siemrelay.sources.file.checkpoints import printable
from siemrelay.sources.file.content import CompressedContent, Content, PlainContent
from siemrelay.sources.file.disk import Disk, FileId, OpenFile, Status
from siemrelay.sources.file.fingerprint import PREFIX_BYTES, ContentChanged, Progress, continues_at
from siemrelay.sources.file.reconcile import Stage
from siemrelay.sources.file.records import RecordReader
from siemrelay.sources.file.rotated_names import age, base_name, family, is_rotated_name
from siemrelay.wire.compression import BEGIN_BYTES, Compression, compression_of
from siemrelay.wire.framing.contract import Ahead, Chunk, Framing, Rest

# The coarsest time stamps of a file system that logs are on.
_TIME_STEP_S: Final = 2.0


class FileMoved(Exception):
    """The name by which a file was to be opened has another file, or none."""


class FollowedFile:
    """A file of this source, open or closed. Blocks on the disk in `open` and `read`."""

    def __init__(
        self, path: str, progress: Progress, *, framing: Framing,
        compression: Compression | None = None,
        clock: Callable[[], float] = time.monotonic, wall_clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.progress = progress
        self.family = family(path)
        self.compression = compression
        self.content: Content | None = None
        self.stage = Stage.READING
        self.proven: dict[str, int] = {}
        """Of contents that it may be a copy of (by key): through how many bytes it is the same."""
        self.origin: str | None = None
        """The followed content that it waits for, or was a copy of."""
        self.resumes: str | None = None
        """The checkpoint that it continues, if it is no copy."""
        self.matched = True
        """Whether its present name matches the globs."""
        self.deleted = self.changed = False
        self.failed = False
        """Whether it could not be read, and is left alone until it is looked at again."""
        self.ready = True
        """Whether there may be something to read."""
        self.hole_noted = False
        """Whether it was logged that it has holes."""
        self.size, self.mtime_s = 0, 0.0
        self.changed_at = clock()
        self.rotated_at: float | None = None
        self.stamp: tuple[int, int] | None = None
        """Size and time of the last write, as last seen."""
        self.surveyed: tuple[int, int] | None = None
        """As `stamp`, at the last survey."""
        self._records = RecordReader(progress, framing)
        self._settled: tuple[int, int] | None = None
        """The stamp of the file when its end was last taken for quiet, and gave nothing."""
        self._clock, self._wall_clock = clock, wall_clock
        self._verified_at = 0.0
        self._verified_size = self._shrunk_from = 0
        self.moved_to(path)

    @property
    def file_id(self) -> FileId:
        return self.progress.device, self.progress.inode

    @property
    def compressed(self) -> bool:
        return self.compression is not None

    @property
    def log(self) -> str:
        """The base name of the log that it belongs to, in whatever directory."""
        return self.progress.log

    def joins(self, path: str) -> None:
        """Take it for a generation of the log of that name, whatever its own name is."""
        self.family, self.progress.log = family(path), base_name(path)

    def moved_to(self, path: str) -> None:
        """Take note of the file's present name."""
        self.path, self.directory = path, os.path.dirname(path)
        self.progress.path = printable(path)
        self.age, self.rotated_name = age(path), is_rotated_name(path)

    def start_at(self, offset: int, part: int = 0, ahead: Ahead = ()) -> None:
        """Take what lies before the offset as read. Raises OSError."""
        assert self.content is not None
        self.progress.move_to(self.content, offset)
        self.progress.part, self.progress.ahead = part, ahead
        self._records.restart(self.progress)

    def adopt_progress(self, progress: Progress, family: str) -> None:
        """Go on as the file that was read before, whatever its name is now."""
        self.progress, self.family = progress, family
        self._records.restart(progress)

    @property
    def birth(self) -> tuple[bool, int, bool, tuple[int, int, str]]:
        """Sorts files that were found at the same time, the older ones first.

        The log itself is the youngest, whatever its time. gzip gives its result the time of the
        original, which is read first if it is still there.
        """
        changed_ns = self.stamp[1] if self.stamp else 0
        return self.is_log, changed_ns, self.compressed, self.age

    @property
    def is_log(self) -> bool:
        """Whether it is the log itself, and no generation of it."""
        return not (self.deleted or self.rotated_name)

    @property
    def unread(self) -> int:
        """Bytes not yet read; of a compressed file the compressed ones, roughly."""
        if self.stage is Stage.COPY or self.progress.finished_size is not None:
            return 0
        if self.compression is not None:
            consumed = self.content.consumed if isinstance(self.content, CompressedContent) else 0
            return max(1, self.size - consumed) if self.size else 0
        return self._records.waiting(self.size)

    @property
    def unread_when_intact(self) -> int:
        """As `unread`, when what was read was last known to be still there."""
        if self.compressed or self.content is None or not self.changed:
            return self.unread
        return self._records.waiting(self._shrunk_from or self._verified_size)

    def take_skipped_nuls(self) -> int:
        """How many NULs of holes were skipped in it since the last call."""
        skipped, self._records.skipped_nuls = self._records.skipped_nuls, 0
        return skipped

    @property
    def idle(self) -> bool:
        """Whether everything in it was read."""
        if self.stage is Stage.COPY:
            return True
        return not (self.ready or self.stage is Stage.WAITING or self.unread)

    @property
    def is_racy(self) -> bool:
        """Whether it may have been written anew with the same size and time, which file systems
        store in steps: what was read is compared with the file again after that.
        """
        return self._verified_at - self.mtime_s < _TIME_STEP_S

    @property
    def waits(self) -> bool:
        """Whether what is left in it is a record once nothing is written for a while."""
        return (
            self._records.wait_s is not None and not self.compressed
            and self._settled != self.stamp and self.unread > 0
        )  # fmt: skip

    @property
    def is_settling(self) -> bool:
        """Whether nothing was written for so long that what is left in it is a record now."""
        wait_s = self._records.wait_s
        return wait_s is not None and self.waits and self._clock() - self.changed_at >= wait_s

    def has_reached(self, size: int) -> bool:
        """Whether everything up to that size of the file was read."""
        if self.stage is Stage.COPY:
            return True
        if self.compressed:
            return self.progress.finished_size is not None
        return self.progress.offset >= size

    def adopt(self, file: OpenFile) -> Content:
        """Read from this open file from now on; closes it when done."""
        self.close()
        compression = self.compression
        self.content = CompressedContent(file, compression) if compression else PlainContent(file)
        return self.content

    def reopen(self, disk: Disk) -> Content:
        """Open the file again by its name, and go on where it was read to.

        Raises FileMoved, ContentChanged if it has the same inode only, OSError.
        """
        try:
            file = disk.open(self.path)
        except FileNotFoundError as error:
            raise FileMoved(self.path) from error
        try:
            if file.status().file_id != self.file_id:
                raise FileMoved(self.path)
            if not self.holds(file):
                raise ContentChanged(self.path)
        except BaseException:
            file.close()
            raise
        content = self.adopt(file)
        if isinstance(content, CompressedContent) and self.progress.finished_size is None:
            self.progress.move_to(content, self.progress.offset)
        self.look()
        return content

    def holds(self, file: OpenFile, path: str | None = None) -> bool:
        """Whether the file, now at `path`, still has what was read of it, and is of its kind."""
        progress = self.progress
        begin = file.pread(BEGIN_BYTES, 0)
        if compression_of(begin, path or self.path) is not self.compression:
            return False
        if self.compression is None:
            return progress.still_in(PlainContent(file))
        content = CompressedContent(file, self.compression)
        if progress.finished_size is not None and progress.end_sha256 is not None:
            size = file.status().size
            if size >= progress.finished_size:
                return content.end_sha256(progress.finished_size) == progress.end_sha256
            return False
        if content.pread(len(progress.begin), 0) != progress.begin:
            return False
        return progress.finished_size is not None or continues_at(
            content, progress.offset, progress.checkpoint().tail_sha256
        )

    def look(self) -> None:
        """See whether the open file has changed."""
        if self.content is not None:
            self.saw(self.content.file.status())

    def saw(self, status: Status) -> None:
        """Take note of the file's status."""
        if status.links == 0 and not self.deleted:
            self.deleted = True
            self.changed_at = self._clock()
        if (stamp := (status.size, status.mtime_ns)) == self.stamp:
            return
        if status.size < self.size and not self._shrunk_from:
            self._shrunk_from = self.size
        self.stamp, self.failed = stamp, False
        self.size, self.mtime_s = status.size, status.mtime_ns / 1e9
        self.changed_at = self._clock()
        self.ready = self.progress.finished_size != self.size
        if isinstance(self.content, PlainContent) and len(self.progress.begin) < PREFIX_BYTES:
            self._see_begin(self.content)

    def _see_begin(self, content: PlainContent) -> None:
        progress = self.progress
        begin = content.file.pread(PREFIX_BYTES, 0)
        if not begin.startswith(progress.begin):
            self.changed = True
        elif progress.offset == 0 and (found := compression_of(begin, self.path)) is not None:
            # It was empty when it was found, and its name does not say that it is compressed.
            if found.expander is None:
                self.changed = True  # to be found again, and reported
                return
            self.compression, progress.compressed, progress.begin = found, True, b""
            self.content = CompressedContent(content.file, found)
        else:
            progress.see_begin(begin)

    def skip_all(self) -> None:
        """Take everything that is in the file as read, but for an incomplete last line."""
        content = self.content
        if isinstance(content, PlainContent):
            self.start_at(self._records.last_line(content, self.size))
        elif content is not None:
            self.start_at(len(content.pread(PREFIX_BYTES, 0)))
            self.finish()

    def finish(self) -> None:
        """Note that a compressed file was read to its end."""
        if isinstance(self.content, CompressedContent):
            self.progress.finished_size = self.size
            self.progress.end_sha256 = self.content.end_sha256(self.size)
            self.ready = False

    def read_in_memory(self, *, finish: bool) -> Chunk | None:
        """As `read`; raises BlockingIOError, with nothing read, if the disk must be waited for."""
        content = self.content
        if not isinstance(content, PlainContent):
            raise BlockingIOError
        content.in_memory_only = True
        try:
            return self.read(finish=finish)
        finally:
            content.in_memory_only = False

    def read(self, *, finish: bool, disk: Disk | None = None) -> Chunk | None:
        """The next records; None when no whole one is there now.

        `finish`: take an incomplete end as it is. Complete compressed files end by themselves;
        the last read of one gives an empty chunk, so that its position can be stored. A closed
        file is opened again, for which `disk` is needed.
        Raises: ContentChanged (it is another file now), FileMoved (look for it), OSError (try
        again later).
        """
        content, progress = self.content, self.progress
        rest = Rest.FINAL if finish else Rest.QUIET if self.is_settling else Rest.OPEN
        if content is None:
            assert disk is not None
            content = self.reopen(disk)
        if isinstance(content, PlainContent):
            began = self._wall_clock()
            chunk = self._records.next(content, self.size, rest)
            if chunk is None:
                self._records.verify(content)
                if rest is Rest.QUIET:
                    self._settled = self.stamp
            self._verified_at, self._verified_size, self._shrunk_from = began, self.size, 0
            self.ready = chunk is not None and progress.offset < self.size
            return chunk
        if progress.finished_size is not None:
            # It grew after its end: whatever was appended lies behind what was read.
            progress.finished_size = progress.end_sha256 = None
            content.rewind()
            progress.move_to(content, progress.offset)
        content.keep_from(progress.offset)
        if finish:
            content.give_up_at_end()
        chunk = self._records.next(content, self.size, Rest.OPEN)
        if chunk is None and content.ended:
            chunk = self._records.next(content, self.size, Rest.FINAL)
            if chunk is None:
                self.finish()
                chunk = Chunk(b"", 0)
        self.ready = chunk is not None and progress.finished_size is None
        return chunk

    def try_later(self) -> None:
        """After an error: close it; the next look at it makes it ready again."""
        self.close()
        self.stamp = None
        self.ready, self.failed = False, True

    def close(self) -> None:
        """Close the descriptor; `reopen` opens it again."""
        if self.content is not None:
            self.content.close()
            self.content = None
            self.progress.forget_recent()
