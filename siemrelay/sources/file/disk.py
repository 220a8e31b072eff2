"""The few calls through which the file source meets the file system.

Everything else in this folder sees files through these, so that the model test can put a
simulated file system in their place and change it between any two calls. Every method blocks.
"""

# ruff: noqa: PTH112, PTH115, PTH116, PTH120, PTH207
# Paths are text here: a survey handles them by the thousand, and Path costs tenfold.
from __future__ import annotations

import errno
import glob
import os
import stat
from typing import NamedTuple

import msgspec

from siemrelay.sources.file.links import FollowLinks, open_file

FileId = tuple[int, int]
"""Device and inode."""


class Status(msgspec.Struct, frozen=True):
    """The status of a regular file, as far as the source needs it."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    links: int

    @property
    def file_id(self) -> FileId:
        return self.device, self.inode


class Entry(NamedTuple):
    """One name in a directory. `inode` is what the directory says, which on some file systems
    (overlayfs, FUSE) is not the file's own.
    """

    name: str
    inode: int
    is_link: bool


class OpenFile:
    """A regular file that is open for reading; owns its descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._seen_size: int | None = None

    def status(self) -> Status:
        """Its status now. `links` is 0 once it is deleted."""
        found = os.fstat(self.fd)
        self._seen_size = found.st_size
        return Status(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_nlink)

    def path(self) -> str | None:
        """Where it is now, whatever it was called when it was opened; None if unknown."""
        try:
            return os.readlink(f"/proc/self/fd/{self.fd}")
        except OSError:
            return None

    def pread(self, length: int, offset: int) -> bytes:
        """`length` bytes from `offset`; fewer only where the file ends now."""
        return os.pread(self.fd, length, offset)

    def pread_cached(self, length: int, offset: int) -> bytes:
        """As `pread`, of what there was at the last look at its status and perhaps of more; raises
        BlockingIOError where that would have to wait for the disk.
        """
        data = bytearray(length)
        try:
            got = os.preadv(self.fd, [data], offset, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:  # this file system does not say
                raise BlockingIOError(errno.EAGAIN, "may have to wait for the disk") from error
            raise
        if got < length and (self._seen_size is None or offset + got < self._seen_size):
            raise BlockingIOError(errno.EAGAIN, "has to wait for the disk")
        return bytes(memoryview(data)[:got])

    def next_data(self, offset: int) -> int | None:
        """Where from there on a hole ends, as far as the file system knows (lseek(2), SEEK_DATA);
        None if there is nothing but a hole up to the end.
        """
        try:
            return os.lseek(self.fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            return offset

    def close(self) -> None:
        os.close(self.fd)


class Disk:
    """The file system of this machine."""

    def __init__(self, follow_links: FollowLinks = "trusted") -> None:
        self._follow_links = follow_links

    def open(self, path: str) -> OpenFile:
        """Open a regular file. Raises OSError; FileNotFoundError if it is no such file, LinkRefused
        if a symbolic link leads there that is not to be followed.
        """
        return OpenFile(open_file(path, self._follow_links))

    def status(self, path: str) -> Status | None:
        """The regular file of that path, links followed; None if there is none that we may see."""
        try:
            status = os.stat(path)
        except OSError:
            return None
        return _status(status) if stat.S_ISREG(status.st_mode) else None

    def entries(self, directory: str) -> list[Entry]:
        """The entries of a directory but for its folders; none if it cannot be listed.

        Up to some hundred names come from one system call, which renames cannot interleave.
        """
        try:
            with os.scandir(directory) as found:
                return [
                    Entry(entry.name, entry.inode(), entry.is_symlink())
                    for entry in found
                    if not entry.is_dir(follow_symlinks=False)
                ]
        except OSError:
            return []

    def directories(self, pattern: str) -> list[str]:
        """Every directory that the glob leads to; `**` stands for any depth."""
        if not glob.has_magic(pattern):
            return [pattern] if os.path.isdir(pattern) else []
        return [path.rstrip("/") or "/" for path in glob.iglob(pattern + "/", recursive=True)]

    def link_directory(self, path: str) -> str:
        """The directory of the file that a link leads to in the end."""
        return os.path.dirname(os.path.realpath(path))

    def barrier(self, directory: str, *, listed: bool) -> str | None:
        """The directory, this one or one above it, that this process may not enter or, where this
        one is `listed`, not read; None if nothing stands in the way, or there is no such directory.
        """
        if self._may_enter(directory, listed=listed):
            return None
        while (above := os.path.dirname(directory)) != directory and not self._may_enter(above):
            directory = above
        return directory if os.path.isdir(directory) else None

    def _may_enter(self, directory: str, *, listed: bool = False) -> bool:
        # The effective ids: for the real ones the kernel leaves capabilities out.
        wanted = os.X_OK | (os.R_OK if listed else 0)
        return os.access(directory, wanted, effective_ids=True)

    def is_directory(self, path: str) -> bool:
        return os.path.isdir(path)


def _status(found: os.stat_result) -> Status:
    return Status(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_nlink)
