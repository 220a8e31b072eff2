"""Disk space kept for the moment when there is none left.

Deleting needs room too: SQLite appends to its log before it frees a page, and the log's pages may
all be new to the database. On a full disk, be it by others or by the buffer itself, gigabytes that
are only kept for replay could not give up one of them, and no cursor could be stored. So a file of
that size stands by and is removed then.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec


class Sizes(msgspec.Struct, frozen=True):
    """How large SQLite's log grows before it is copied into the database, and the reserve: that
    and more than one group of records."""

    log_bytes: int
    reserve_bytes: int


LARGE: Final = Sizes(log_bytes=16 << 20, reserve_bytes=24 << 20)
"""Copied seldom enough to cost little, small enough for a restart to read the log quickly."""

SMALL: Final = Sizes(log_bytes=1 << 20, reserve_bytes=4 << 20)
"""On a file system of which the others would be a large part."""

_SMALL_DISK_BYTES: Final = 512 << 20

# With less free room than so many reserves, the reserve would be what fills the disk.
_ROOM_FACTOR: Final = 2


def sizes_for(state_dir: Path) -> Sizes:
    """Those that fit the file system of that directory."""
    disk = os.statvfs(state_dir)
    return SMALL if disk.f_blocks * disk.f_frsize < _SMALL_DISK_BYTES else LARGE


class EmergencyReserve:
    """The file `reserve` in the state directory. Not for two threads at once."""

    def __init__(self, state_dir: Path, size_bytes: int) -> None:
        self._path, self.size_bytes = state_dir / "reserve", size_bytes

    def hold(self, *, again: bool = False) -> bool:
        """Whether the reserve is there; made where the disk has plenty of room. Never raises.

        `again`: it was there just now and has done its work, so its own room is enough.
        """
        try:
            if self._path.exists() and self._path.stat().st_size == self.size_bytes:
                return True
            needed = self.size_bytes * (1 if again else _ROOM_FACTOR)
            if _free_bytes(self._path.parent) < needed:
                return False
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(descriptor, 0)  # one of another size
                os.posix_fallocate(descriptor, 0, self.size_bytes)
            finally:
                os.close(descriptor)
        except OSError:
            self.release()  # half a reserve would pass for a whole one
            return False
        return True

    def lacks(self, more_bytes: int) -> bool:
        """Whether the reserve and so much more do not fit on the disk as it is now."""
        held = self._path.stat().st_size if self._path.exists() else 0
        return _free_bytes(self._path.parent) + held < self.size_bytes + more_bytes

    def release(self) -> None:
        """Give the room back to the file system."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError:
            return  # nothing is gained, and the caller finds the disk as full as it was


def _free_bytes(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize
