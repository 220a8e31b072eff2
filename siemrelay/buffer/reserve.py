"""Disk space kept for the moment when there is none left.

Deleting needs room too: SQLite appends to its log before it frees a page, and the log's pages may
all be new to the database. On a disk that others have filled, a buffer of gigabytes that are only
kept for replay could not give up one of them. So a file of that size stands by and is removed then.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

# The write-ahead log at its largest: 16 MiB, after which it is copied, and one group of records.
RESERVE_BYTES: Final = 24 * 1024 * 1024

# On a disk with less free room than so many reserves, the reserve would be what fills it.
_ROOM_FACTOR: Final = 4


class Reserve:
    """The file `reserve` beside the buffer. Not for two threads at once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def hold(self, *, again: bool = False) -> bool:
        """Whether the reserve is there; made where the disk has plenty of room. Never raises.

        `again`: it was there just now and has done its work, so its own room is enough.
        """
        try:
            if self._path.exists() and self._path.stat().st_size == RESERVE_BYTES:
                return True
            room = os.statvfs(self._path.parent)
            if room.f_bavail * room.f_frsize < RESERVE_BYTES * (1 if again else _ROOM_FACTOR):
                return False
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
            finally:
                os.close(descriptor)
        except OSError:
            self.release()  # half a reserve would pass for a whole one
            return False
        return True

    def release(self) -> None:
        """Give the room back to the file system."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError:
            return  # nothing is gained, and the caller finds the disk as full as it was
