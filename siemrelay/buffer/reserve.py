"""Disk space held back for the moment when the disk is full.

Deleting rows needs room too: SQLite appends to its log before it frees a page. On a disk that is
completely full, no delivered record could be deleted and no cursor stored. So a file of this size
is kept, and removed when the room is needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from siemrelay.core.errors import BufferFull, DiskFull, StartRefused

_T = TypeVar("_T")


class Sizes(msgspec.Struct, frozen=True):
    """`log_bytes`: the size at which SQLite copies its log into the database. `reserve_bytes`: room
    for the log and more than one group of records."""

    log_bytes: int
    reserve_bytes: int


LARGE: Final = Sizes(log_bytes=16 << 20, reserve_bytes=24 << 20)
"""Large enough to copy the log seldom, small enough to read it quickly at a start."""

SMALL: Final = Sizes(log_bytes=1 << 20, reserve_bytes=4 << 20)
"""For small file systems."""

_SMALL_DISK_BYTES: Final = 512 << 20

# The reserve is made only if this many of it are free: it must not fill the disk itself.
_ROOM_FACTOR: Final = 2

# More than all programs of a machine are likely to write in the time between two looks.
_PLENTY_BYTES: Final = 4 << 30
_LOOK_S: Final = 1.0


def sizes_for(state_dir: Path) -> Sizes:
    """The sizes for the file system of that directory."""
    disk = os.statvfs(state_dir)
    return SMALL if disk.f_blocks * disk.f_frsize < _SMALL_DISK_BYTES else LARGE


class EmergencyReserve:
    """The file `reserve` in the state directory. Not thread-safe."""

    def __init__(self, state_dir: Path, size_bytes: int) -> None:
        self._path, self.size_bytes = state_dir / "reserve", size_bytes
        self._folder = str(state_dir)
        self._look_at = 0.0  # before this `is_spent` need not look

    def hold(self, *, again: bool = False) -> bool:
        """Make the reserve if the disk has plenty of room; whether it exists. Never raises.

        `again`: it was released a moment ago, so room for itself is enough.
        """
        try:
            if self._path.exists() and self._path.stat().st_size == self.size_bytes:
                return True
            needed = self.size_bytes * (1 if again else _ROOM_FACTOR)
            if self._free_bytes() < needed:
                return False
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(descriptor, 0)  # one of another size
                os.posix_fallocate(descriptor, 0, self.size_bytes)
            finally:
                os.close(descriptor)
        except OSError:
            self.release()  # a partial reserve is of no use
            return False
        return True

    def is_spent(self, now: float) -> bool:
        """Whether the reserve is released and the disk has less room left than it takes.

        Deletion needs that room: records must not take it, or nothing could be deleted any more
        (test_records_do_not_take_the_room_that_deletion_needs). While the disk had plenty at a look
        it is not looked at again for a second. `now`: of any clock, in seconds.
        """
        if now < self._look_at:
            return False
        try:
            free = self._free_bytes()
        except OSError:
            return False  # the directory is gone: the caller's next write says so
        if free >= self.size_bytes + _PLENTY_BYTES:
            self._look_at = now + _LOOK_S
        return free < self.size_bytes and not self._path.exists()

    def lacks(self, more_bytes: int) -> bool:
        """Whether the disk lacks room for the reserve and `more_bytes`."""
        held = self._path.stat().st_size if self._path.exists() else 0
        return self._free_bytes() + held < self.size_bytes + more_bytes

    def spend_for(self, store: Callable[[], _T]) -> _T:
        """Store; on a full disk with the room of the reserve. Raises StartRefused without room."""
        try:
            try:
                return store()
            except DiskFull:
                self.release()
                return store()
        except BufferFull as error:
            raise StartRefused(
                f"cannot store where each sink is: {error}; make some MiB of room under state_dir"
            ) from error

    def release(self) -> None:
        """Remove the file, so that its room can be used."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError:
            return  # the caller finds the disk still full

    def _free_bytes(self) -> int:
        disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize
