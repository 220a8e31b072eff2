"""What a disk may hold after a power cut at any point of a recorded write log.

What was fsynced before the cut is there. Of the rest, each sector is there or not, whatever its
neighbours and its older and newer versions are: disks reorder and tear. A name that was made or
removed is certain once its directory was fsynced.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import msgspec

from tests.torture.shim import HEAD, Call

_WITH_DATA = (Call.WRITE, Call.RENAME, Call.NONE)


class Operation(msgspec.Struct):
    """One call in the log. `data`: what was written, the new path of a rename, or a mark."""

    call: Call
    path: str
    inode: int
    at: int
    size: int
    data: bytes = b""


def read_log(log: Path) -> Iterator[Operation]:
    """Everything that was recorded, in order."""
    whole = log.read_bytes()
    at = 0
    while at < len(whole):
        call, path_size, inode, offset, size = HEAD.unpack_from(whole, at)
        at += HEAD.size
        path = whole[at : at + path_size].decode()
        at += path_size
        data = whole[at : at + size] if call in _WITH_DATA else b""
        at += len(data)
        yield Operation(Call(call), path, inode, offset, size, data)


class _Change(msgspec.Struct):
    """A change of a file or a directory; `doubtful`: no later fsync writes it to disk."""

    operation: Operation
    file: _File | None = None
    certain: bool = False
    doubtful: bool = False


class _File:
    """A file's bytes on disk, and what has changed since."""

    def __init__(self, content: bytes = b"") -> None:
        self.durable = bytearray(content)
        self.changes: list[_Change] = []

    def sync(self) -> None:
        for change in self.changes:
            change.certain = change.certain or not change.doubtful
        while self.changes and self.changes[0].certain:
            _apply(self.durable, self.changes.pop(0).operation)

    def fail_sync(self) -> None:
        for change in self.changes:
            change.doubtful = not change.certain

    def image(self, chance: random.Random, share: float, sector: int) -> bytes:
        if not self.changes:
            return bytes(self.durable)
        content = bytearray(self.durable)
        for change in self.changes:
            if change.certain or share == 1:
                _apply(content, change.operation)
            elif share:
                _apply_torn(content, change.operation, chance, share, sector)
        return bytes(content)


class Disk:
    """The state of the directory after a part of the log. `ignore_syncs`: as if none ever worked.

    Begins with the files of `start`, all durable.
    """

    def __init__(self, start: Path | None = None, *, ignore_syncs: bool = False) -> None:
        self._ignore_syncs = ignore_syncs
        self._names: dict[str, _File | None] = {}  # on disk for certain; None: a directory
        self._changes: list[_Change] = []  # of names
        self._live: dict[str, _File | None] = {"": None}
        self._inodes: dict[int, _File] = {}
        for path in sorted(start.rglob("*")) if start else ():
            name = f"/{path.relative_to(start or path)}"
            self._names[name] = self._live[name] = (
                None if path.is_dir() else _File(path.read_bytes())
            )

    def apply(self, operation: Operation) -> None:
        """The next call of the log."""
        match operation.call:
            case Call.SYNC if not self._ignore_syncs:
                self._sync(operation)
            case Call.FAILED_SYNC if file := self._file(operation):
                file.fail_sync()
            case Call.WRITE | Call.TRUNCATE | Call.ALLOCATE:
                file = self._file(operation)
                assert file is not None, operation.path
                file.changes.append(_Change(operation))
            case Call.OPEN | Call.MKDIR | Call.UNLINK | Call.RENAME:
                made = None
                if operation.call == Call.OPEN:
                    made = self._inodes[operation.inode] = _File()
                elif operation.call == Call.RENAME:
                    made = self._live[operation.path]
                change = _Change(operation, made)
                _rename(self._live, change)
                self._changes.append(change)

    def _file(self, operation: Operation) -> _File | None:
        """The file that a descriptor stands for; it may have been unlinked, or be of the start."""
        if operation.inode not in self._inodes:
            found = self._live.get(operation.path)
            if found is None:
                return None
            self._inodes[operation.inode] = found
        return self._inodes[operation.inode]

    def _sync(self, operation: Operation) -> None:
        if (file := self._file(operation)) is not None:
            file.sync()
            return
        for change in self._changes:
            if str(PurePosixPath(change.operation.path).parent) == (operation.path or "/"):
                change.certain = True
        while self._changes and self._changes[0].certain:
            _rename(self._names, self._changes.pop(0))

    def write_image(
        self, to: Path, chance: random.Random, *, share: float, sector: int = 512
    ) -> None:
        """Make what may be found after a cut here: about `share` of what is not certain.

        0 is nothing of it, 1 all of it.
        """
        names = dict(self._names)
        by_name = defaultdict[str, list[_Change]](list)
        for change in self._changes:
            by_name[change.operation.path].append(change)
        # Of one name's changes those up to some point: they have an order.
        for changes in by_name.values():
            kept = sum(chance.random() < share for _ in changes)
            sure = max((i + 1 for i, change in enumerate(changes) if change.certain), default=0)
            for change in changes[: max(kept, sure)]:
                _rename(names, change)
        to.mkdir()
        for name, file in sorted(names.items()):
            path = to / name.lstrip("/")
            if not path.parent.is_dir():
                continue  # its directory was never made
            if file is None:
                path.mkdir()
            else:
                path.write_bytes(file.image(chance, share, sector))


def _rename(names: dict[str, _File | None], change: _Change) -> None:
    match change.operation.call:
        case Call.UNLINK:
            names.pop(change.operation.path, None)
        case Call.RENAME:
            names.pop(change.operation.path, None)
            names[change.operation.data.decode()] = change.file
        case _:
            names[change.operation.path] = change.file


def _apply(content: bytearray, operation: Operation) -> None:
    match operation.call:
        case Call.TRUNCATE:
            _resize(content, operation.at)
        case Call.ALLOCATE:
            _resize(content, max(len(content), operation.at + operation.size))
        case _:
            _put(content, operation.at, operation.data)


def _apply_torn(
    content: bytearray, operation: Operation, chance: random.Random, share: float, sector: int
) -> None:
    if operation.call != Call.WRITE:
        if chance.random() < share:
            _apply(content, operation)
        return
    end = operation.at + len(operation.data)
    if end > len(content) and chance.random() < share / 2:
        _resize(content, end)  # the size is metadata, and may be ahead of the bytes
    start = operation.at
    while start < end:
        stop = min(end, (start // sector + 1) * sector)
        if chance.random() < share:
            _put(content, start, operation.data[start - operation.at : stop - operation.at])
        start = stop


def _resize(content: bytearray, size: int) -> None:
    del content[size:]
    content.extend(bytes(size - len(content)))


def _put(content: bytearray, at: int, data: bytes) -> None:
    if at > len(content):
        _resize(content, at)
    content[at : at + len(data)] = data
