"""The seals and leaves of a sealed stream that the relay keeps beside the buffer.

The seals and their time stamps stay for ever: a line of JSON each. The leaves, 32 bytes a message,
stay for `seal.keep` in files of 65,536; with them `siemrelay verify --tiles` names the very message
that was changed.
Nothing else depends on them: what cannot be written is logged, and the signed roots show where
leaves are missing (zeros).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import structlog

from siemrelay.proof.merkle import HASH_BYTES
from siemrelay.proof.seal import Timestamp
from siemrelay.proof.stream import PendingSeal

_log = structlog.get_logger()

LEAVES_PER_FILE: Final = 65_536

# Leaves wait in memory until the next seal, or until there are so many.
_MOST_WAITING: Final = 4_096

_EXPIRE_EVERY_S: Final = 3600.0

# The last line is in here: a seal with a time stamp has up to 64 KiB.
_END_BYTES: Final = 256 * 1024

_Line = TypeVar("_Line")


class ArchivedSeal(msgspec.Struct, frozen=True):
    """A confirmed seal: origin, number, the record before which it stands, size, time, text."""

    origin: str
    number: int
    position: int
    size: int
    at: float
    text: str


class ArchivedTimestamp(msgspec.Struct, frozen=True):
    """The time stamp of seal `number`: its time in seconds, the authority's answer in DER."""

    number: int
    at: float
    response: bytes


def folder_of(state_dir: Path, stream: str) -> Path:
    """Where the archive of a stream is."""
    return state_dir / "seals" / stream


class SealArchive:
    """The archive of one stream, written by its relay. Blocks: call it in threads."""

    def __init__(self, state_dir: Path, stream: str, keep_s: float) -> None:
        self.stream = stream
        self._folder, self._keep_s = folder_of(state_dir, stream), keep_s
        self._waiting: list[bytes] = []
        self._lock = threading.Lock()  # the settler adds, the sender writes before a seal
        self._first_waiting, self._expire_at_s, self._failed = 0, 0.0, False

    def add(self, first: int, leaves: Sequence[bytes]) -> bool:
        """Add the leaves of messages from number `first` on; those of a stream come in order.

        Does not block. Returns whether so many wait that they are to be written.
        """
        with self._lock:
            if not self._waiting:
                self._first_waiting = first
            # After a broken connection the same ones come again.
            del self._waiting[first - self._first_waiting :]
            self._waiting += leaves
            return len(self._waiting) >= _MOST_WAITING

    def write(self) -> None:
        """Write the leaves that wait, and delete those whose time is over."""
        with self._lock:
            first, leaves, self._waiting = self._first_waiting, self._waiting, []
        try:
            self._write(first, leaves)
            if time.monotonic() >= self._expire_at_s:
                self._expire_at_s = time.monotonic() + _EXPIRE_EVERY_S
                self._expire()
        except OSError as error:
            self._log_failure(error)

    def add_seal(self, origin: str, seal: PendingSeal) -> None:
        """Add a seal that was confirmed."""
        line = ArchivedSeal(origin, seal.number, seal.position, seal.size, seal.at, seal.text)
        self._append("seals", line)

    def add_timestamp(self, timestamp: Timestamp, at: float) -> None:
        """Add the time stamp of a seal, and its time in seconds."""
        line = ArchivedTimestamp(timestamp.number, at, timestamp.response)
        self._append("timestamps", line)

    def last_seal(self) -> ArchivedSeal | None:
        """The last confirmed seal."""
        return _last(self._folder / "seals", ArchivedSeal)

    def unstamped(self) -> tuple[float | None, ArchivedSeal | None]:
        """The time of the last time stamp, if there is one, and the last seal if it has none."""
        stamp = _last(self._folder / "timestamps", ArchivedTimestamp)
        seal = self.last_seal()
        if stamp is None:
            return None, seal
        return stamp.at, seal if seal is not None and seal.number > stamp.number else None

    def _append(self, name: str, line: msgspec.Struct) -> None:
        try:
            with open(self._open(name, os.O_RDWR | os.O_APPEND), "ab") as file:
                end = file.tell()
                # A crash or a full disk may have left a part of a line: only that one is lost
                # (test_a_torn_line_of_the_archive_costs_no_other).
                if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
                    file.write(b"\n")
                file.write(msgspec.json.encode(line) + b"\n")
        except OSError as error:
            self._log_failure(error)

    def _write(self, first: int, leaves: Sequence[bytes]) -> None:
        while leaves:
            file, at = divmod(first, LEAVES_PER_FILE)
            now, leaves = leaves[: LEAVES_PER_FILE - at], leaves[LEAVES_PER_FILE - at :]
            descriptor = self._open(f"leaves-{file:06d}", os.O_WRONLY)
            try:
                os.pwrite(descriptor, b"".join(now), at * HASH_BYTES)
            finally:
                os.close(descriptor)
            first += len(now)

    def _open(self, name: str, flags: int) -> int:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(self._folder / name, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _expire(self) -> None:
        oldest = time.time() - self._keep_s
        for path in self._folder.glob("leaves-*"):
            if path.stat().st_mtime < oldest:
                path.unlink()

    def _log_failure(self, error: OSError) -> None:
        if not self._failed:  # once a process: deliveries go on
            _log.error("the archive of seals cannot be written", folder=str(self._folder),
                       reason=error.strerror, advice="make room; until then a changed message can "
                       "be found only up to its minute")  # fmt: skip
        self._failed = True


def read_seals(folder: Path) -> Iterator[ArchivedSeal]:
    """The confirmed seals of a stream, in order; without one of which a crash left a part."""
    last = -1
    for seal in _lines(folder / "seals", ArchivedSeal):
        if seal.number > last:  # one is written again after a crash
            last = seal.number
            yield seal


def read_timestamps(folder: Path) -> Iterator[ArchivedTimestamp]:
    """The time stamps of a stream's seals, in order."""
    yield from _lines(folder / "timestamps", ArchivedTimestamp)


def _lines(path: Path, kind: type[_Line]) -> Iterator[_Line]:
    try:
        with path.open("rb") as file:
            yield from _decoded(file, kind)
    except FileNotFoundError:
        return


def _decoded(lines: Iterable[bytes], kind: type[_Line]) -> Iterator[_Line]:
    """The values of lines, without one of which a crash left a part."""
    for line in lines:
        with suppress(msgspec.MsgspecError):
            yield msgspec.json.decode(line, type=kind)


def _last(path: Path, kind: type[_Line]) -> _Line | None:
    """The value of the last line; None without one. The file may be large: its end is read."""
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _END_BYTES, 0))
            lines = file.read().splitlines()
    except OSError:
        return None
    return next(_decoded(reversed(lines), kind), None)


def read_leaves(folder: Path) -> Iterator[tuple[int, bytes]]:
    """Files of leaves: the number of the first, and 32 bytes for each, zeros where one is unknown.

    Raises OSError.
    """
    for path in sorted(folder.glob("leaves-*")):
        yield int(path.name.partition("-")[2]) * LEAVES_PER_FILE, path.read_bytes()
