"""Reads the records of one content from where its progress is: many short lines at a time, a long
one alone or in parts, whatever a framing finds, and past the NULs of holes.

A file has holes after a crash of the machine, and after `copytruncate` if its writer does not
append: it goes on at its old offset in the emptied file. What is mapped into memory, or allocated
in advance, is NUL at its end until it is written, so NULs are skipped only once something follows.
"""

from __future__ import annotations

from typing import Final

from siemrelay.sources.file.content import Content, PlainContent
from siemrelay.sources.file.fingerprint import ContentChanged, Progress
from siemrelay.wire.framing.contract import (
    MAX_WHOLE_BYTES,
    Chunk,
    Framing,
    Rest,
    Splitter,
    with_oversize,
)
from siemrelay.wire.framing.encodings import line_feed
from siemrelay.wire.framing.lines import LineFraming, cut

# What is read at once while catching up: a thousand audit events, so that a thread hop costs
# little, and only milliseconds of work between two turns of the event loop.
CHUNK_BYTES: Final = 1 << 19
# To find other records than lines takes ten times as long.
_FRAMED_BYTES: Final = 1 << 17
# The least to ask for: a line that grew while we looked comes with it, and it is little beside a
# core's first cache, which the rest of a lone line's way needs.
_MIN_READ_BYTES: Final = 4 << 10
# An incomplete line up to this long is simply read again when it has grown; of a longer one only
# the new part is searched for its end, or a line written in small pieces would cost its square.
_REREAD_BYTES: Final = 64 << 10
# Where reading starts at the end, the beginning of an incomplete line is looked for this far back.
_LAST_LINE_BYTES: Final = 64 << 10
# So many NULs in a row are a hole, which ends a line; a few may be a field's.
_HOLE: Final = bytes(64)


class RecordReader:
    """Takes whole records from a content and moves its progress past them. Blocks on the disk."""

    def __init__(self, progress: Progress, framing: Framing) -> None:
        self.skipped_nuls = 0
        """Bytes of holes that were skipped."""
        self._framing, self._max_record_bytes = framing, framing.max_record_bytes
        self.restart(progress)

    def restart(self, progress: Progress) -> None:
        """Go on from there."""
        self._progress = progress
        self._splitter: Splitter | None = None
        self.wait_s: float | None = None
        """See `Splitter.wait_s`; None as long as nothing was looked at."""
        self._searched = progress.offset
        """Up to here no line feed follows the offset."""
        self._blank = (0, 0)

    def waiting(self, size: int) -> int:
        """How many bytes wait in a file of that size; NULs at its end hold nothing yet."""
        start, end = self._blank
        blank = self._progress.offset <= start and end >= size
        return max(0, (start if blank else size) - self._progress.offset)

    def next(self, content: Content, size: int, rest: Rest) -> Chunk | None:
        """The next records, which may be none where NULs were skipped; None if there are none now.

        `size`: of a plain file, as last seen. `rest`: what may follow at the end of the content.
        Raises ContentChanged if what was read before is no longer there, OSError.
        """
        progress = self._progress
        self._blank = (0, 0)
        splitter = self._splitter
        if splitter is None:
            splitter = self._made_splitter(content)
        if not isinstance(splitter, LineFraming):
            return self._framed(content, splitter, size, rest)
        finish = rest is Rest.FINAL
        if progress.part or self._searched - progress.offset > _REREAD_BYTES:
            return self._long_line(content, finish=finish)
        want = CHUNK_BYTES
        if isinstance(content, PlainContent):
            # More than there is: what fills the read has not been read to its end.
            want = min(want, max(_MIN_READ_BYTES, size - progress.offset + 1))
        data = content.pread(want, progress.offset)
        hole = -1
        if b"\0" in data:
            if data.startswith(_HOLE):
                return self._skip_nuls(content, data, finish=finish)
            hole = data.find(_HOLE)
            data = data[:hole] if hole >= 0 else data
        chunk = cut(data, self._max_record_bytes)
        if chunk is not None:
            self.verify(content)
            progress.advance(chunk.consumed)
            self._searched = progress.offset
            return chunk
        if hole >= 0:
            return self._before_hole(content, progress.offset + hole, finish=finish)
        self._searched = progress.offset + len(data)
        if len(data) == want or finish:
            return self._long_line(content, finish=finish)
        return None

    def last_line(self, content: Content, size: int) -> int:
        """Where the incomplete last line begins; `size` if it is longer than is looked at."""
        start = max(0, size - _LAST_LINE_BYTES) & ~1  # two bytes a character, perhaps
        last = content.pread(size - start, start)
        feed = line_feed(self._framing, content.pread(self._framing.begin_bytes, 0))
        at = last.rfind(feed)
        while at > 0 and at % len(feed):
            at = last.rfind(feed, 0, at + len(feed) - 1)
        return start + at + len(feed) if at >= 0 else size

    def _made_splitter(self, content: Content) -> Splitter:
        """The content's splitter, which is kept once something was taken."""
        progress, framing = self._progress, self._framing
        begin = progress.begin
        enough = framing.by_first_line and b"\n" in begin
        if framing.begin_bytes > len(begin) and not enough:
            begin = content.pread(framing.begin_bytes, 0)
        splitter = framing.splitter(begin, at_start=progress.offset == 0)
        self.wait_s = splitter.wait_s
        progress.line_feed = line_feed(framing, begin)
        if progress.offset:
            self._splitter = splitter
        return splitter

    def _framed(self, content: Content, splitter: Splitter, size: int, rest: Rest) -> Chunk | None:
        """As `next`, of a framing that is more than lines."""
        progress, want = self._progress, _FRAMED_BYTES
        while True:
            if isinstance(content, PlainContent) and content.in_memory_only and want > CHUNK_BYTES:
                raise BlockingIOError  # a long record takes a while
            data = content.pread(want, progress.offset)
            if rest is Rest.QUIET:  # only what was there all the time
                data = data[: max(0, size - progress.offset)]
            hole = data.find(_HOLE) if b"\0" in data else -1
            if not hole:
                return self._skip_nuls(content, data, finish=rest is Rest.FINAL)
            ended, now = len(data) < want or hole > 0, Rest.OPEN
            if hole > 0:
                data, now = data[:hole], self._before_rest(content, progress.offset + hole, rest)
            elif ended:
                now = rest
            elif want >= MAX_WHOLE_BYTES:
                now = Rest.FINAL  # a record over 16 MiB is split
            chunk = splitter.split(data, now, progress.ahead)
            if chunk is not None:
                self.verify(content)
                progress.advance(chunk.consumed)
                progress.ahead, progress.part = chunk.ahead, 0
                self._searched = progress.offset
                return with_oversize(chunk, self._max_record_bytes)
            if ended:
                return None
            want *= 4

    def _before_rest(self, content: Content, hole: int, rest: Rest) -> Rest:
        """A hole ends a record, once it is known to be one: something follows."""
        followed = self._end_of_nuls(content, hole, hole + len(_HOLE)) is not None
        return Rest.FINAL if followed else rest

    def verify(self, content: Content) -> None:
        """Raise ContentChanged unless what was read before is still there; asked after each read:
        what is read after a truncation is read again from its beginning (`test_moments`).
        """
        if isinstance(content, PlainContent) and not self._progress.still_in(content):
            raise ContentChanged(self._progress.path)

    def _skip_nuls(self, content: Content, data: bytes, *, finish: bool) -> Chunk | None:
        """Move past the NULs with which `data`, read at the offset, begins."""
        offset = self._progress.offset
        zeros = len(data) - len(data.lstrip(b"\0"))
        end: int | None = offset + zeros
        if (
            zeros == len(data)
            and (end := self._end_of_nuls(content, offset, offset + zeros)) is None
        ):
            if not finish:
                return None
            _, end = self._blank
        assert end is not None
        self.verify(content)
        self._progress.advance_nuls(end - offset)
        self.skipped_nuls += end - offset
        self._searched = end
        return Chunk(b"", 0)

    def _end_of_nuls(self, content: Content, start: int, at: int) -> int | None:
        """The first byte from `at` that is not NUL; None, with nothing waiting behind `start`, if
        there are only NULs up to the end.
        """
        if isinstance(content, PlainContent) and content.in_memory_only:
            raise BlockingIOError  # it may take a while
        while (data_at := content.next_data(at)) is not None:
            data = content.pread(CHUNK_BYTES, data_at)
            if text := data.lstrip(b"\0"):
                return data_at + len(data) - len(text)
            at = data_at + len(data)
            content.keep_from(at)
            if not data:
                break
        else:
            at = max(at, content.file.status().size)
        self._blank = (start, at)
        return None

    def _before_hole(self, content: Content, hole: int, *, finish: bool) -> Chunk | None:
        """The line that a hole ends, once it is known to be one: something follows."""
        if not finish and self._end_of_nuls(content, hole, hole + len(_HOLE)) is None:
            return None
        return self._line(content, hole - self._progress.offset, ended=False)

    def _long_line(self, content: Content, *, finish: bool) -> Chunk | None:
        """One line whose end is not in the first piece, or a part of it."""
        start = self._progress.offset
        while True:
            if self._searched - start > MAX_WHOLE_BYTES:
                return self._part(content)
            data = content.pread(CHUNK_BYTES, self._searched)
            hole = data.find(_HOLE) if b"\0" in data else -1
            found = data.find(b"\n", 0, hole if hole >= 0 else len(data))
            end = found if found >= 0 else hole
            if end >= 0:
                if self._searched + end - start > MAX_WHOLE_BYTES:
                    return self._part(content)
                if found < 0:
                    return self._before_hole(content, self._searched + hole, finish=finish)
                return self._line(content, self._searched + found - start, ended=True)
            self._searched += len(data)
            if not data:
                some = finish and self._searched > start
                return self._line(content, self._searched - start, ended=False) if some else None

    def _part(self, content: Content) -> Chunk | None:
        progress = self._progress
        piece = content.pread(MAX_WHOLE_BYTES, progress.offset)
        if len(piece) < MAX_WHOLE_BYTES:
            return None  # truncated meanwhile
        self.verify(content)
        progress.advance(piece)
        progress.part += 1
        self._searched = max(self._searched, progress.offset)
        return Chunk(piece + b"\n", 1, progress.part)

    def _line(self, content: Content, length: int, *, ended: bool) -> Chunk | None:
        progress = self._progress
        data = content.pread(length + ended, progress.offset)
        if len(data) < length + ended:
            return None  # truncated meanwhile
        self.verify(content)
        progress.advance(data)
        self._searched = progress.offset
        line, parts = data if ended else data.rstrip(b"\0") + b"\n", progress.part
        progress.part = 0
        if parts:
            return Chunk(line, 1, parts + 1, (parts * MAX_WHOLE_BYTES + length,))
        if line in (b"\n", b"\r\n"):
            return Chunk(b"", 0)
        return Chunk(line, 1, None, (length,) if length > self._max_record_bytes else ())
