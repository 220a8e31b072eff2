"""One suite over every row of the sources: what the relay may rely on, whatever is read."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from siemrelay.net.listening_sockets import BindAddress, ListeningSockets
from siemrelay.net.tasks import Broadcast
from siemrelay.registry import SOURCES
from siemrelay.sources.contract import Records
from tests.contracts.cancelling import PATIENCE_S, NothingLeft, cancelled_at, eventually
from tests.contracts.source_peers import PEERS, Servers, SourcePeer, number_of, rows_where

STOP_S = 5.0
"""How long a source may take to stop: systemd waits for much longer, a person does not."""


class UnkeptSockets(ListeningSockets):
    """Sockets that end with their source, as when it is removed."""

    async def take(
        self, owner: str, address: BindAddress, *, mode: int = 0o660
    ) -> list[trio.socket.SocketType]:
        taken = await super().take(owner, address, mode=mode)
        self.close(owner, address)
        return taken


class StoringIntake:
    """A buffer in memory, on a disk that may hang, in a process that may be killed.

    What is offered is on disk once something else comes: a kill loses it, with the positions that
    came with it. While it is not `open`, no more records get on disk.
    """

    def __init__(self) -> None:
        self.stored: list[int] = []
        self.asked = 0
        self.open = True
        self._positions: dict[str, str] = {}
        self._offered: list[Records] = []
        self._changed = Broadcast()
        self.sockets = UnkeptSockets()

    @property
    def numbers(self) -> set[int]:
        return set(self.stored)

    async def turn(self, at_most_s: float = 0.0) -> bool:
        await trio.lowlevel.checkpoint()
        return False

    async def offer(self, *records: Records) -> None:
        await trio.lowlevel.checkpoint()
        self.flush()
        for each in records:
            self._take(each)
        self._offered += records
        self._changed.wake_all()

    async def store(self, *records: Records) -> int:
        for each in records:
            self._take(each)
        await trio.lowlevel.checkpoint()
        while not self.open and any(each.count for each in records):
            await self._changed.wait()
        self.flush()
        for each in records:
            self._keep(each)
        self._changed.wake_all()
        return len(self.stored)

    def _take(self, records: Records) -> None:
        assert records.payload == b"" or records.payload.endswith(b"\n")
        assert records.payload.count(b"\n") == records.count
        self.asked += records.count

    def _keep(self, records: Records) -> None:
        self.stored += [number_of(line) for line in records.payload.splitlines()]
        for position in records.positions:
            # As from the buffer: only what JSON can hold comes back.
            self._positions[position.key] = json.dumps(position.value)

    def flush(self) -> None:
        """Put on disk what was offered, if anything gets there now."""
        if self.open:
            offered, self._offered = self._offered, []
            for records in offered:
                self._keep(records)

    def open_up(self) -> None:
        """The disk works again."""
        self.open = True
        self.flush()
        self._changed.wake_all()

    def kill(self) -> None:
        """The process ended: what is not on disk is lost."""
        self._offered = []

    async def delivered(self, stored: int) -> None:
        await trio.lowlevel.checkpoint()

    @property
    def full(self) -> bool:
        return False

    async def settled(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self.open:
            await self._changed.wait()
        self.flush()

    def positions(self) -> Mapping[str, Mapping[str, Any]]:
        found = {key: json.loads(value) for key, value in self._positions.items()}
        return {key: value for key, value in found.items() if value is not None}

    def lag(self, lag_bytes: int) -> None: ...
    def progress(self) -> None: ...
    def connected(self, change: int) -> None: ...
    def following(self, files: int) -> None: ...
    def unreadable(self, files: int, why: str) -> None: ...
    def blocked(self, why: str) -> None: ...
    def oversize(self, size_bytes: int) -> None: ...
    def refused(self, reason: str, records: int = 1) -> None: ...

    def lost(self, records: int) -> None:
        assert not records, "nothing is lost here"

    def lost_bytes(self, unread: int) -> None:
        assert not unread, "nothing is lost here"

    def skipped_nuls(self, count: int) -> None:
        assert not count, "no source of these has holes"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(stack, tmp_path_factory.mktemp("servers"))


@pytest.fixture
async def peer(
    request: pytest.FixtureRequest, tmp_path: Path, servers: Servers
) -> AsyncIterator[SourcePeer]:
    row: str = request.param
    made = PEERS[row](row, tmp_path, servers, request.node.name)
    async with made.open():
        yield made


every_row = pytest.mark.parametrize("peer", PEERS, indirect=True)


@asynccontextmanager
async def running(peer: SourcePeer, intake: StoringIntake) -> AsyncIterator[trio.Nursery]:
    async def run() -> None:
        await peer.source().run(intake, drain=False)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield nursery
        nursery.cancel_scope.cancel()


async def read_all(peer: SourcePeer, intake: StoringIntake) -> None:
    """Run a source until everything there is has been read."""
    if peer.drains:
        await peer.source().run(intake, drain=True)
        intake.flush()
        return
    async with running(peer, intake):
        while len(intake.numbers) < peer.produced:
            await trio.sleep(0.01)
            intake.flush()


def test_every_row_has_a_peer() -> None:
    assert PEERS.keys() == set(SOURCES), "a new row needs its peer in source_peers.py"


@every_row
async def test_everything_is_stored_once_and_in_order(peer: SourcePeer) -> None:
    intake = StoringIntake()
    await peer.produce(50)
    with trio.fail_after(PATIENCE_S):
        await read_all(peer, intake)
    assert intake.stored == list(range(50))
    if peer.acknowledges:
        assert await trio.to_thread.run_sync(peer.acknowledged) == 50


@pytest.mark.parametrize("peer", rows_where("again"), indirect=True)
async def test_what_is_read_and_not_stored_is_not_acknowledged_and_comes_again(
    peer: SourcePeer,
) -> None:
    intake = StoringIntake()
    intake.open = False
    await peer.produce(20)
    async with running(peer, intake):
        await eventually(lambda: intake.asked > 0, "records came")
        await trio.testing.wait_all_tasks_blocked()
    intake.kill()
    assert intake.stored == []
    if peer.acknowledges:
        assert await trio.to_thread.run_sync(peer.acknowledged) == 0
    intake.open_up()
    with trio.fail_after(PATIENCE_S):
        await read_all(peer, intake)
    assert intake.numbers == set(range(20))


@every_row
@pytest.mark.parametrize("works", [True, False], ids=["idle", "hanging-disk"])
async def test_a_source_stops_within_its_bound_idle_or_while_the_disk_hangs(
    peer: SourcePeer, works: bool
) -> None:
    intake = StoringIntake()
    await peer.produce(5)
    intake.open = works
    async with running(peer, intake) as nursery:
        await eventually(lambda: intake.asked > 0, "records came")
        nursery.cancel_scope.cancel()
        started = time.monotonic()
    assert time.monotonic() - started < STOP_S


@every_row
async def test_cancelled_at_any_await_a_source_leaves_nothing_open_and_loses_nothing(
    peer: SourcePeer,
) -> None:
    """Each run goes on from the positions that the one before has stored."""
    intake = StoringIntake()

    async def work() -> None:
        await read_all(peer, intake)

    await peer.produce(2)
    await work()  # what is imported and made once, is now
    nothing_left = NothingLeft()
    for step in peer.cancel_points:
        await peer.produce(2)
        with trio.fail_after(PATIENCE_S):
            over = await cancelled_at(step, work)
        intake.kill()
        await nothing_left.check(f"cancelled at step {step}")
        if peer.acknowledges:
            acknowledged = await trio.to_thread.run_sync(peer.acknowledged)
            assert acknowledged <= len(intake.numbers), f"cancelled at step {step}"
        if over:
            break
    with trio.fail_after(PATIENCE_S):
        await peer.produce(2)
        await work()
    if peer.again:
        assert intake.numbers == set(range(peer.produced))
