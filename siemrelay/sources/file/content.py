"""The bytes of an open file, as written or decompressed, read at any offset.

Both classes own their file. They block on the disk: the caller decides on which thread.
"""

from __future__ import annotations

from typing import Final

from siemrelay.sources.file.disk import OpenFile
from siemrelay.sources.file.fingerprint import digest
from siemrelay.wire.compression import CUT_OFF, Compression, Damaged, Decompressor

# Compressed bytes per read: large enough that calls do not count.
_INPUT_BYTES: Final = 64 << 10
# How many of the last compressed bytes are the fingerprint of a file that was read to its end:
# they hold the checksums and sizes of all of it.
_END_BYTES: Final = 1024
# How much of the beginning of what it expands to is kept, to be looked at again at no cost.
_BEGIN_BYTES: Final = 4 << 10


class PlainContent:
    """A file as it is; it may grow."""

    def __init__(self, file: OpenFile) -> None:
        self.file = file
        self.in_memory_only = False
        """Whether to raise BlockingIOError instead of waiting for the disk."""

    def pread(self, length: int, offset: int) -> bytes:
        """`length` bytes from `offset`; fewer only where the file ends now."""
        if self.in_memory_only:
            return self.file.pread_cached(length, offset)
        return self.file.pread(length, offset)

    def next_data(self, offset: int) -> int | None:
        """See `OpenFile.next_data`."""
        return self.file.next_data(offset)

    def keep_from(self, offset: int) -> None:
        """Nothing before `offset` will be asked for soon."""

    def close(self) -> None:
        self.file.close()


class CompressedContent:
    """The content of a compressed file, expanded in bounded steps; all members count as one.

    Offsets are those of the expanded content. Only what lies between `keep_from` and the furthest
    read is in memory; reading before it expands from the start again.
    """

    def __init__(self, file: OpenFile, compression: Compression) -> None:
        """Raises CannotExpand if the compression has no expander."""
        self.file, self._compression = file, compression
        self.damage: str | None = None
        """The damage that expanding has found; the content ends there."""
        self._may_give_up = False
        self.rewind()

    def rewind(self) -> None:
        """Expand from the start again; what was found damaged gets another chance."""
        self._decompressor = Decompressor(self._compression)
        self._input_offset = 0
        self._window = bytearray()
        self._begin = b""
        self._start = self._keep = 0
        self.damage = None

    @property
    def complete(self) -> bool:
        """Whether all that the file holds now was expanded and ended where a member ends."""
        return self._decompressor.complete and 0 < self._input_offset >= self.file.status().size

    @property
    def ended(self) -> bool:
        """Whether the file as it is now holds nothing more."""
        return self.damage is not None or self.complete

    @property
    def consumed(self) -> int:
        """How many compressed bytes were read from the file."""
        return self._input_offset

    def end_sha256(self, size: int) -> str:
        """The fingerprint of the whole file, which has that many (compressed) bytes."""
        length = min(size, _END_BYTES)
        return digest(self.file.pread(length, size - length))

    def give_up_at_end(self) -> None:
        """From now on take the end of an unfinished file as its end."""
        self._may_give_up = True

    def keep_from(self, offset: int) -> None:
        """Nothing before `offset` will be asked for soon: free it."""
        self._keep = offset
        self._trim()

    def pread(self, length: int, offset: int) -> bytes:
        """`length` bytes from `offset`; fewer only where what can be expanded now ends."""
        end = offset + length
        if end <= len(self._begin):
            return self._begin[offset:end]
        if offset < self._start:
            keep = self._keep
            self.rewind()
            self._keep = min(keep, offset)
        while self._start + len(self._window) < end and self._expand_more():
            pass
        return bytes(self._window[max(0, offset - self._start) : max(0, end - self._start)])

    def next_data(self, offset: int) -> int | None:
        """Compressed files have no holes."""
        return offset

    def length(self, limit: int, *, keep: int) -> int:
        """How long the content is, looked for up to `limit`; keeps the last `keep` bytes."""
        if self._start > max(0, min(limit, self._start + len(self._window)) - keep):
            self.rewind()
        while (known := self._start + len(self._window)) < limit:
            self._keep = max(0, known - keep)
            if not self._expand_more():
                break
        return min(limit, self._start + len(self._window))

    def _expand_more(self) -> bool:
        """Add the next piece, perhaps an empty one, to what is in memory; False at the end."""
        if self.damage is not None or (expanded := self._expand()) is None:
            return False
        if len(self._begin) < _BEGIN_BYTES:
            self._begin += expanded[: _BEGIN_BYTES - len(self._begin)]
        self._window += expanded
        self._trim()
        return True

    def _trim(self) -> None:
        if (spare := min(self._keep - self._start, len(self._window))) > 0:
            del self._window[:spare]
            self._start += spare

    def _expand(self) -> bytes | None:
        """The next piece, perhaps empty; None where the file ends now."""
        decompressor = self._decompressor
        if decompressor.needs_input:
            more = self.file.pread(_INPUT_BYTES, self._input_offset)
            if not more:
                if self._may_give_up and not decompressor.complete:
                    self.damage = CUT_OFF
                return None
            self._input_offset += len(more)
            decompressor.feed(more)
            if decompressor.needs_input:
                return b""
        try:
            return decompressor.step()
        except Damaged as error:
            self.damage = str(error)
            return error.saved

    def close(self) -> None:
        self._window = bytearray()
        self.file.close()


Content = PlainContent | CompressedContent
