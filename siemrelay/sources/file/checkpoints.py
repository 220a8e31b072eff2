"""Where each file was read to: what is stored, and what is remembered of files that are gone."""

# ruff: noqa: PTH118, PTH119, PTH120
# Paths are text here: a survey handles them by the thousand, and Path costs tenfold.
from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from siemrelay.sources.contract import Position
from siemrelay.sources.file.rotated_names import base_name
from siemrelay.wire.framing.contract import Ahead

# How long a file must be gone before its checkpoint is forgotten. Not less than a day: a file
# system that is mounted late, and a log that is compressed with tomorrow's rotation, are known.
KEEP_GONE_S: Final = 86400.0
# The most checkpoints of files that are gone; a log that is rotated every second of a day.
MAX_GONE: Final = 86400
# Of so many files that left last it is remembered what was read of them last.
_MAX_RECENT: Final = 128
# The key under which it is stored that reading began at the end of what was there.
_BEGUN_KEY: Final = "begun"


class FileCheckpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where one file was read to. Offsets count the content, which of a compressed file is what
    it expands to.
    """

    path: str
    device: int
    inode: int
    serial: int
    """Rises with every file found; the older of two files has the lower one."""
    offset: int
    prefix_length: int
    prefix_sha256: str
    tail_sha256: str
    part: int = 0
    """How many parts of a split record lie before `offset`."""
    ahead: Ahead = ()
    """Stretches behind `offset` that were taken before what is at it, as `Chunk.ahead`."""
    finished_size: int | None = None
    """Of a compressed file that was read to its end: its (compressed) size then."""
    compressed: bool | None = None
    """Whether the file is; None in checkpoints of releases that went by the name."""
    end_sha256: str | None = None
    """Of a compressed file that was read to its end: its last compressed bytes."""
    copied: bool = False
    """A copy was found and read on from here."""
    truncated: bool = False
    """The file that held this content holds another one."""
    log: str = ""
    """The base name of the log that it is a generation of, whatever it was renamed to; empty in
    checkpoints of releases that went by the name.
    """
    marks: tuple[tuple[int, int], ...] = ()
    """Where the records read last end, and a CRC-32 of what lies before each end: a copy that was
    made before the last of them were written is recognised by the one with which it ends. That is
    enough beside the beginning, which is the same, and a length that must be one of these.
    """
    gone: float | None = None
    """Since when (seconds since the epoch) the file is not to be found."""

    def position(self, key: str) -> Position:
        """In the form in which it is stored."""
        return Position(key, msgspec.structs.asdict(self))

    @property
    def is_compressed(self) -> bool:
        return self.path.endswith(".gz") if self.compressed is None else self.compressed

    @property
    def log_name(self) -> str:
        return self.log or base_name(self.path)

    @property
    def family(self) -> str:
        """As `rotation.family` of the name that the file was found by."""
        return os.path.join(os.path.dirname(self.path), self.log_name)

    @property
    def is_rotated(self) -> bool:
        """Whether its name is not that of the log itself."""
        return os.path.basename(self.path) != self.log_name


def printable(path: str) -> str:
    """A path as text that can be stored and logged: names need not be UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


class CheckpointStore:
    """The checkpoints of files that are not followed: not found yet, deleted, or out of sight.

    Found again by key, by inode, and by the name of their log. Collects what is to be stored,
    also for files that are followed, until `take_changes`. Bounded by `KEEP_GONE_S` and
    `MAX_GONE`.
    """

    def __init__(self) -> None:
        self._checkpoints: dict[str, FileCheckpoint] = {}
        self._keys_by_inode: defaultdict[int, dict[str, None]] = defaultdict(dict)
        self._keys_by_log: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._changes: dict[str, Position] = {}
        self._recent: dict[str, bytes] = {}

    def __len__(self) -> int:
        return len(self._checkpoints)

    def load(self, stored: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """Take in what was stored; returns what is not understood (key → why), left out."""
        faults: dict[str, str] = {}
        for key, value in stored.items():
            if key != _BEGUN_KEY:
                try:
                    self._put(key, msgspec.convert(dict(value), FileCheckpoint))
                except msgspec.ValidationError as error:
                    faults[key] = str(error)
        return faults

    def latest_serial(self) -> int:
        return max((point.serial for point in self._checkpoints.values()), default=0)

    def note_begun(self) -> None:
        """Store that reading began at the end, so that the next start does not do so again."""
        self._changes[_BEGUN_KEY] = Position(_BEGUN_KEY, {"at": time.time()})

    def note(self, position: Position) -> None:
        """Store the position of a file that is followed, though nothing was read."""
        self._changes.pop(position.key, None)
        self._changes[position.key] = position

    def take_changes(self) -> tuple[Position, ...]:
        """The positions to store since the last call, the earliest first."""
        if not self._changes:
            return ()
        changes = tuple(self._changes.values())
        self._changes.clear()
        return changes

    def put(self, key: str, checkpoint: FileCheckpoint, recent: bytes = b"") -> None:
        """Remember a file that is followed no longer, and store that.

        `recent`: the bytes before its offset, which are kept in memory for a while.
        """
        self._put(key, checkpoint)
        if recent:
            self._recent[key] = recent
            if len(self._recent) > _MAX_RECENT:
                del self._recent[next(iter(self._recent))]
        self.note(checkpoint.position(key))

    def _put(self, key: str, checkpoint: FileCheckpoint) -> None:
        self.pop(key)
        self._checkpoints[key] = checkpoint
        self._keys_by_inode[checkpoint.inode][key] = None
        self._keys_by_log[checkpoint.log_name][key] = None

    def pop(self, key: str) -> FileCheckpoint | None:
        """Take out the checkpoint of a file that is followed again."""
        checkpoint = self._checkpoints.pop(key, None)
        if checkpoint is not None:
            _unlist(self._keys_by_inode, checkpoint.inode, key)
            _unlist(self._keys_by_log, checkpoint.log_name, key)
        return checkpoint

    def get(self, key: str) -> FileCheckpoint | None:
        return self._checkpoints.get(key)

    def recent(self, key: str) -> bytes:
        """The bytes before the offset, as far as they are remembered."""
        return self._recent.get(key, b"")

    def items(self) -> list[tuple[str, FileCheckpoint]]:
        return list(self._checkpoints.items())

    def of_inode(self, inode: int) -> list[tuple[str, FileCheckpoint]]:
        """The latest first."""
        keys = reversed(self._keys_by_inode.get(inode, {}))
        return [(key, self._checkpoints[key]) for key in keys]

    def of_log(self, name: str) -> list[tuple[str, FileCheckpoint]]:
        """All that belong to a log of that base name, in any directory."""
        return [(key, self._checkpoints[key]) for key in self._keys_by_log.get(name, {})]

    def inodes(self) -> set[int]:
        """The inodes under which a file may still be found."""
        return set(self._keys_by_inode)

    def expire(self, now_s: float) -> None:
        """Note what is missing from now on, and forget what is gone for too long.

        `now_s`: seconds since the epoch. Call after a survey that has found all there is.
        """
        for key, checkpoint in list(self._checkpoints.items()):
            if checkpoint.gone is None:
                self.put(key, msgspec.structs.replace(checkpoint, gone=now_s))
            elif now_s - checkpoint.gone >= KEEP_GONE_S or len(self._checkpoints) > MAX_GONE:
                self.pop(key)
                self.note(Position(key, None))


def _unlist(lists: defaultdict[int, dict[str, None]] | defaultdict[str, dict[str, None]],
            name: int | str, key: str) -> None:  # fmt: skip
    keys = lists[name]  # type: ignore[index]  # each caller pairs its own list and name
    del keys[key]
    if not keys:
        del lists[name]  # type: ignore[arg-type]  # as above
