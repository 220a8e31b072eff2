"""A file system in memory, changed by somebody else between any two calls of the file source.

An inode is given to the next file as soon as nothing leads to it any more, as ext4 does.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import cast

from siemrelay.sources.file.disk import Disk, Entry, FileId, OpenFile, Status
from siemrelay.sources.file.watcher import Changes

DEVICE = 1
DIRECTORY = "/logs"


class Inode:
    """A file's content, and who holds it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.data = bytearray()
        self.mtime_ns = 0
        self.links = self.holders = 0


class SimulatedDisk(Disk):
    """One directory of files. `before_call` runs before each of the relay's calls."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.names: dict[str, Inode] = {}
        self.before_call: Callable[[], None] = lambda: None
        self.watchers: list[SimulatedWatcher] = []
        self._now = now
        self._free: list[int] = []
        self._numbers = 0
        self._open: list[SimulatedFile] = []

    # What programs do: each is one step.

    def create(self, path: str) -> Inode:
        number = self._free.pop() if self._free else self._numbers + 1
        self._numbers = max(self._numbers, number)
        inode = Inode(number)
        inode.links = 1
        self.names[path] = inode
        self.touch(inode)
        self._report(path)
        return inode

    def append(self, inode: Inode, data: bytes) -> None:
        inode.data += data
        self.touch(inode)

    def touch(self, inode: Inode) -> None:
        inode.mtime_ns = int(self._now() * 1e9)
        for watcher in self.watchers:
            watcher.written(inode)

    def truncate(self, inode: Inode) -> None:
        inode.data.clear()
        self.touch(inode)

    def rename(self, path: str, to: str) -> None:
        if to in self.names:
            self._unlink(self.names[to])
        self.names[to] = self.names.pop(path)
        self._report(path)
        self._report(to, moved_from=path)

    def unlink(self, path: str) -> None:
        self._unlink(self.names.pop(path))
        self._report(path)

    def hold(self, inode: Inode) -> None:
        inode.holders += 1

    def release(self, inode: Inode) -> None:
        inode.holders -= 1
        self._maybe_free(inode)

    def _unlink(self, inode: Inode) -> None:
        inode.links -= 1
        self._maybe_free(inode)

    def _maybe_free(self, inode: Inode) -> None:
        if not inode.links and not inode.holders:
            self._free.append(inode.number)
            for watcher in self.watchers:
                watcher.unwatch_file((DEVICE, inode.number))

    def _report(self, path: str, moved_from: str | None = None) -> None:
        for watcher in self.watchers:
            watcher.entry(path, moved_from)

    # What the relay asks.

    def open(self, path: str) -> OpenFile:
        self.before_call()
        if path not in self.names:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        file = SimulatedFile(self, self.names[path])
        self._open.append(file)
        return cast("OpenFile", file)

    def closed(self, file: SimulatedFile) -> None:
        self._open.remove(file)
        self.release(file.inode)

    def close_all(self) -> list[Inode]:
        """The relay's process ended; returns what it had open."""
        inodes = [file.inode for file in self._open]
        for file in list(self._open):
            self.closed(file)
        return inodes

    def is_open(self, inode: Inode) -> bool:
        """Whether the relay has it open."""
        return any(file.inode is inode for file in self._open)

    def status(self, path: str) -> Status | None:
        self.before_call()
        inode = self.names.get(path)
        return None if inode is None else status_of(inode)

    def entries(self, directory: str) -> list[Entry]:
        self.before_call()
        return [
            Entry(path.rpartition("/")[2], inode.number, is_link=False)
            for path, inode in self.names.items()
        ]

    def directories(self, pattern: str) -> list[str]:
        return [DIRECTORY]

    def link_directory(self, path: str) -> str:
        return DIRECTORY

    def barrier(self, directory: str, *, listed: bool) -> str | None:
        return None

    def is_directory(self, path: str) -> bool:
        return path == DIRECTORY


class SimulatedFile:
    """An `OpenFile` of a `SimulatedDisk`."""

    fd = -1

    def __init__(self, disk: SimulatedDisk, inode: Inode) -> None:
        self._disk, self.inode = disk, inode
        disk.hold(inode)

    def status(self) -> Status:
        self._disk.before_call()
        return status_of(self.inode)

    def path(self) -> str | None:
        self._disk.before_call()
        found = [path for path, inode in self._disk.names.items() if inode is self.inode]
        return found[0] if found else None

    def pread(self, length: int, offset: int) -> bytes:
        self._disk.before_call()
        return bytes(self.inode.data[offset : offset + length])

    pread_cached = pread

    def next_data(self, offset: int) -> int | None:
        return offset if offset < len(self.inode.data) else None

    def close(self) -> None:
        self._disk.closed(self)


def status_of(inode: Inode) -> Status:
    return Status(DEVICE, inode.number, len(inode.data), inode.mtime_ns, inode.links)


class SimulatedWatcher:
    """Reports what happens on a `SimulatedDisk`, as inotify does; nothing if not `active`."""

    def __init__(
        self, disk: SimulatedDisk, is_wanted: Callable[[str], bool], *, active: bool
    ) -> None:
        self._disk, self._is_wanted, self.active = disk, is_wanted, active
        self._watches = False
        self._files: set[FileId] = set()
        self._changes = Changes()
        self._moved: dict[str, str] = {}
        disk.watchers.append(self)

    def written(self, inode: Inode) -> None:
        if self.active and (DEVICE, inode.number) in self._files:
            self._changes.written[DEVICE, inode.number] = None

    def entry(self, path: str, moved_from: str | None) -> None:
        if not (self.active and self._watches):
            return
        wanted = [moved_from or path, path]
        if any(
            self._is_wanted(each.rpartition("/")[2])
            or each in self._changes.moved
            or each in self._moved
            for each in wanted
        ):
            self._changes.entries.add(path)
            if moved_from is not None:
                self._changes.moved[path] = self._changes.moved.get(moved_from) or self._moved.get(
                    moved_from, moved_from
                )

    def watch_directory(self, path: str) -> None:
        self._watches = True

    def watch_file(self, file: OpenFile, file_id: FileId) -> None:
        if self.active:
            self._files.add(file_id)

    def unwatch_file(self, file_id: FileId) -> None:
        self._files.discard(file_id)

    def take_changes(self) -> Changes:
        self._disk.before_call()
        changes, self._changes = self._changes, Changes()
        self._moved.update(changes.moved)
        return changes

    def forget_moved(self) -> None:
        self._moved.clear()

    def close(self) -> None:
        self._disk.watchers.remove(self)
