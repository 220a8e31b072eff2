"""The end that was durable last, in a file beside the database: proves that records are gone.

The database is consistent by itself whatever happens to it, so it does not show that it is too old:
a write-ahead log that was removed or cut, an older copy, an emptied file all open without an error,
and then sequence numbers would be used twice. The file `high-watermark` holds the end and the
cursors of the last commit. It is written after each commit's fsync and not fsynced itself each
time, so it may be behind the database (after a power cut), never ahead of it.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import structlog

from siemrelay.buffer.rows import StoredCursor

_log = structlog.get_logger()

_CHECKSUM_DIGITS: Final = 8

_encode: Final = msgspec.json.Encoder().encode


class Watermark(msgspec.Struct, frozen=True):
    """The sequence number after the last durable record, and each sink's cursor then."""

    end: int
    cursors: dict[str, StoredCursor]


class HighWatermark:
    """The file. What fails on it is ignored: it is a witness, and no record depends on it."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "high-watermark"
        self._descriptor: int | None = None
        self._cursors: dict[str, StoredCursor] = {}
        self._encoded_cursors = b"{}"  # few commits move any
        self._unsynced = False

    def read(self) -> Watermark | None:
        """The last noted state; None if there is none, or none that can be trusted."""
        try:
            line = self._path.read_bytes().partition(b"\n")[0]
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("the high watermark cannot be read", error=error.strerror)
            return None
        checksum, text = line[:_CHECKSUM_DIGITS], line[_CHECKSUM_DIGITS:]
        try:
            if checksum == b"%08x" % zlib.crc32(text):
                return msgspec.json.decode(text, type=Watermark)
        except msgspec.DecodeError:
            pass
        _log.warning("the high watermark is damaged: whether acknowledged records are gone cannot "
                     "be told at this start", file=str(self._path))  # fmt: skip
        return None

    def note(self, end: int, moved: Mapping[str, StoredCursor]) -> None:
        """Note a commit that has returned: the end, and the cursors that moved."""
        if moved:
            self._cursors.update(moved)
            self._encoded_cursors = _encode(self._cursors)
        text = b'{"end":%d,"cursors":%b}' % (end, self._encoded_cursors)
        try:
            if self._descriptor is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
                self._descriptor = os.open(self._path, flags, 0o600)
            # What a longer line left behind this one is not read: the line ends here.
            os.pwrite(self._descriptor, b"%08x%b\n" % (zlib.crc32(text), text), 0)
            self._unsynced = True
        except OSError:
            return  # see above

    def start_with(self, end: int, cursors: Mapping[str, StoredCursor]) -> None:
        """Note the end and the cursors with which the relay goes on; other sinks are forgotten."""
        self._cursors, self._encoded_cursors = {}, b"{}"
        self.note(end, cursors)

    def sync(self) -> None:
        """Bring what was noted to the disk, to outlive a power cut."""
        if self._descriptor is not None and self._unsynced:
            self._unsynced = False
            with suppress(OSError):
                os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Sync and close the file."""
        self.sync()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
