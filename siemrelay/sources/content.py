"""The bytes of an open file, as written or through gunzip, read at any offset.

Both classes own their descriptor. They block on the disk: the caller decides on which thread.
"""

from __future__ import annotations

import errno
import os
import stat
import zlib
from typing import Final

# Compressed bytes per read, and the most that one call may inflate them to: large enough that
# calls do not count, small enough that a bomb costs no memory.
_INPUT_BYTES: Final = 64 << 10
_OUTPUT_BYTES: Final = 256 << 10
# zlib's largest window (15 bits) plus 16: a gzip header and trailer, nothing else.
_GZIP_WBITS: Final = 15 + 16
_MAGIC: Final = b"\x1f\x8b"


class PlainContent:
    """A file as it is; it may grow."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.in_memory_only = False
        """Whether to raise BlockingIOError instead of waiting for the disk."""

    def pread(self, length: int, offset: int) -> bytes:
        """`length` bytes from `offset`; fewer only where the file ends now."""
        if not self.in_memory_only:
            return os.pread(self.fd, length, offset)
        data = bytearray(length)
        try:
            got = os.preadv(self.fd, [data], offset, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:  # this file system cannot tell
                raise BlockingIOError(errno.EAGAIN, "may have to wait for the disk") from error
            raise
        if got < length and offset + got < os.fstat(self.fd).st_size:
            raise BlockingIOError(errno.EAGAIN, "has to wait for the disk")
        return bytes(memoryview(data)[:got])

    def keep_from(self, offset: int) -> None:
        """Say that nothing before `offset` will be asked for soon."""

    def close(self) -> None:
        os.close(self.fd)


class GzipContent:
    """A gzip file's content, inflated in bounded steps; several members count as one.

    Offsets are those of the inflated content. Only what lies between `keep_from` and the furthest
    read is in memory; reading before it inflates from the start again.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.damage: str | None = None
        """What is wrong with the file, once inflating met it; the content ends there."""
        self._may_give_up = False
        self.rewind()

    def rewind(self) -> None:
        """Inflate from the start again; what was found damaged gets another chance."""
        self._inflater = zlib.decompressobj(_GZIP_WBITS)
        self._input = b""
        self._input_offset = 0
        self._between_members = True
        self._window = bytearray()
        self._start = self._keep = 0
        self.damage = None

    @property
    def complete(self) -> bool:
        """Whether all that the file holds now was inflated and ended where a member ends."""
        return (
            self._between_members
            and not self._input
            and 0 < self._input_offset >= os.fstat(self.fd).st_size
        )

    @property
    def consumed(self) -> int:
        """How many compressed bytes were read from the file."""
        return self._input_offset

    def give_up_at_end(self) -> None:
        """From now on take the end of an unfinished file as its end."""
        self._may_give_up = True

    def keep_from(self, offset: int) -> None:
        """Say that nothing before `offset` will be asked for soon, and free it."""
        if offset < self._start:
            self.rewind()
        self._keep = offset
        self._trim()

    def pread(self, length: int, offset: int) -> bytes:
        """`length` bytes from `offset`; fewer only where what can be inflated now ends."""
        if offset < self._start:
            self.rewind()
        end = offset + length
        while self._start + len(self._window) < end and self.damage is None:
            inflated = self._inflate()
            if inflated is None:
                break
            self._window += inflated
            self._trim()
        return bytes(self._window[max(0, offset - self._start) : max(0, end - self._start)])

    def _trim(self) -> None:
        if (spare := min(self._keep - self._start, len(self._window))) > 0:
            del self._window[:spare]
            self._start += spare

    def _inflate(self) -> bytes | None:
        """The next piece, perhaps empty; None where the file ends now."""
        if not self._input or (self._between_members and len(self._input) < len(_MAGIC)):
            more = os.pread(self.fd, _INPUT_BYTES, self._input_offset)
            self._input_offset += len(more)
            self._input += more
            if not more:
                return self._at_end()
        if self._between_members and not self._begin_member():
            return b""
        # A copy of the state (some 40 KiB) is what lets everything before the damaged byte be
        # had: after an error zlib hands out nothing of the whole piece.
        before = self._inflater.copy()
        try:
            inflated = self._inflater.decompress(self._input, _OUTPUT_BYTES)
        except zlib.error as error:
            self.damage = str(error)
            return _salvage(before, self._input)
        self._input = self._inflater.unconsumed_tail
        if self._inflater.eof:
            self._input = self._inflater.unused_data
            self._between_members = True
        return inflated

    def _at_end(self) -> bytes | None:
        """All of the file that there is now was inflated."""
        if self._between_members and not self._input:
            return None
        # What zlib holds back of the input it has taken; matters if the file stays cut off.
        if not self._between_members and (rest := self._inflater.decompress(b"", _OUTPUT_BYTES)):
            return rest
        if self._may_give_up:
            self.damage = "ends in the middle of its compressed data"
        return None

    def _begin_member(self) -> bool:
        """Start on the next member; False where only padding, garbage or too little is there."""
        self._input = self._input.lstrip(b"\0")  # tapes and block devices pad with NULs
        if len(self._input) < len(_MAGIC):
            return False
        if not self._input.startswith(_MAGIC):
            self.damage = "not gzip data"
            return False
        self._inflater = zlib.decompressobj(_GZIP_WBITS)
        self._between_members = False
        return True

    def close(self) -> None:
        self._window = bytearray()
        os.close(self.fd)


def _salvage(inflater: zlib._Decompress, data: bytes) -> bytes:
    """What `data` inflates to before the byte that breaks it."""
    saved = bytearray()
    for at in range(len(data)):
        try:
            saved += inflater.decompress(data[at : at + 1])
        except zlib.error:
            break
    return bytes(saved)


Content = PlainContent | GzipContent


def open_regular(path: str) -> tuple[int, os.stat_result]:
    """A descriptor of a regular file. Raises OSError; FileNotFoundError if it is no such file."""
    # O_NONBLOCK: a FIFO that took the name's place since it was looked at would hold us for ever.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise FileNotFoundError(f"{path} is not a regular file")
    return fd, status


def present_path(fd: int) -> str | None:
    """Where an open file is now, whatever it was called when it was opened; None if unknown."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115  (text, as everywhere here)
    except OSError:
        return None
