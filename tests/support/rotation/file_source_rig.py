"""An intake in memory, and a file source run against real files."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from siemrelay.core.lines import records_of
from siemrelay.net.listening_sockets import ListeningSockets
from siemrelay.sources.contract import Records
from siemrelay.sources.file.options import FileOptions
from siemrelay.sources.file.source import FileSource

# Far above what any step takes; a test that waits longer has failed.
PATIENCE_S = 20.0


class CollectingIntake:
    """Keeps what it is offered; positions survive from one run of a source to the next."""

    def __init__(self) -> None:
        self.offered: list[Records] = []
        self.sockets = ListeningSockets()
        self.lines: list[bytes] = []
        self.stored: dict[str, Mapping[str, Any]] = {}
        self.oversizes: list[int] = []
        self.unreadables: list[tuple[int, str]] = []
        self.blocked_whys: list[str] = []
        self.third_unreadable = threading.Event()
        self.lost_total = self.nuls = 0
        self.lag_bytes = 0
        self._changed = trio.Condition()

    async def turn(self, at_most_s: float = 0.0) -> bool:
        await trio.lowlevel.checkpoint()
        return False

    async def offer(self, *records: Records) -> None:
        await trio.lowlevel.checkpoint()
        for some in records:
            self._take(some)
        async with self._changed:
            self._changed.notify_all()

    def _take(self, records: Records) -> None:
        assert records.payload == b"" or records.payload.endswith(b"\n")
        if records.payload:
            self.offered.append(records)
            found = records_of(records.payload, records.count)
            assert len(found) == records.count
            self.lines += found
        for position in records.positions:
            if position.value is None:
                self.stored.pop(position.key, None)
            else:
                # As from the buffer: only what JSON can hold comes back.
                self.stored[position.key] = json.loads(json.dumps(position.value))

    async def store(self, *records: Records) -> int:
        for some in records:
            await self.offer(some)
        return len(self.lines)

    async def delivered(self, stored: int) -> None:
        await trio.lowlevel.checkpoint()

    @property
    def full(self) -> bool:
        return False

    async def settled(self) -> None:
        await trio.lowlevel.checkpoint()

    def positions(self) -> Mapping[str, Mapping[str, Any]]:
        return dict(self.stored)

    def lag(self, lag_bytes: int) -> None:
        self.lag_bytes = lag_bytes

    def progress(self) -> None:
        pass

    def oversize(self, size_bytes: int) -> None:
        self.oversizes.append(size_bytes)

    def lost(self, records: int) -> None:
        raise AssertionError("a file source loses nothing")

    def refused(self, reason: str, records: int = 1) -> None:
        raise AssertionError("a file source refuses nothing")

    def following(self, files: int) -> None: ...

    def unreadable(self, files: int, why: str) -> None:
        # From a thread, too.
        self.unreadables.append((files, why))
        if len(self.unreadables) > 2:
            self.third_unreadable.set()

    def blocked(self, why: str) -> None:
        self.blocked_whys.append(why)

    def lost_bytes(self, unread: int) -> None:
        self.lost_total += unread

    def skipped_nuls(self, count: int) -> None:
        self.nuls += count

    def connected(self, change: int) -> None:
        raise AssertionError("a file source has no connections")

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for something that an offer brings about."""
        with trio.fail_after(PATIENCE_S):
            async with self._changed:
                while not holds():
                    await self._changed.wait()

    async def until_lines(self, count: int) -> list[bytes]:
        await self.until(lambda: len(self.lines) >= count)
        return self.lines

    def is_at(self, path: Path, offset: int) -> bool:
        """Whether a stored position says that the file was read up to the offset."""
        return any(
            value.get("path") == str(path) and value["offset"] == offset
            for value in self.stored.values()
        )


def source(path: Path | str | list[str], **settings: Any) -> FileSource:
    path = str(path) if isinstance(path, Path) else path
    framing = settings.pop("framing", None)
    return FileSource("audit", FileOptions(path=path, **settings), framing)


@asynccontextmanager
async def running(path: Path | str | list[str], intake: CollectingIntake,
                  **settings: Any) -> AsyncIterator[None]:  # fmt: skip
    """The source at work for as long as the block lasts."""
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await source(path, **settings).run(intake, drain=False)

        nursery.start_soon(run)
        yield
        nursery.cancel_scope.cancel()


async def drained(path: Path | str | list[str], intake: CollectingIntake,
                  **settings: Any) -> list[bytes]:  # fmt: skip
    """Everything delivered once a draining source has returned."""
    with trio.fail_after(PATIENCE_S):
        await source(path, **settings).run(intake, drain=True)
    return intake.lines


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)
