"""One connection of a listener: stops at every await, and hand-overs that go together."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest
import structlog
import trio
import trio.testing

from siemrelay.net.listener import AcceptedConnection
from siemrelay.sources.contract import Intake, Records
from siemrelay.sources.syslog.address import SyslogAddress
from siemrelay.sources.syslog.listener import SourceActivity
from siemrelay.sources.syslog.options import SyslogOptions
from siemrelay.sources.syslog.relp import RelpListener
from siemrelay.sources.syslog.stream import PeerStream, StreamListener

ADDRESS = SyslogAddress("tcp", "127.0.0.1", 514, "")
PEER = "192.0.2.1"


class Steps:
    """Cancels `scope` at the await of that number; `over` once there were fewer."""

    def __init__(self, at: int) -> None:
        self.left, self.scope = at, trio.CancelScope()

    async def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()
        await trio.lowlevel.checkpoint()

    @property
    def over(self) -> bool:
        return self.left > 0


class Store:
    """An intake that takes a moment before and after it has taken something."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self.taken: list[bytes] = []

    async def turn(self, at_most_s: float = 0.0) -> bool:
        await self._steps.step()
        return False

    async def offer(self, records: Records) -> None:
        await self._steps.step()
        self.taken += records.payload.splitlines()

    async def store(self, *records: Records) -> int:
        await self._steps.step()
        for some in records:
            self.taken += some.payload.splitlines()
        await self._steps.step()
        return len(self.taken)

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None  # the counters


@pytest.fixture
def readable() -> Iterator[socket.socket]:
    """A socket that the kernel reports as readable: a listener waits for that before it reads."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b".")
        yield ours


class Peer:
    """A stream that gives `chunks` one by one, then its end; `given` and `told` are what went."""

    def __init__(self, steps: Steps, readable: socket.socket, chunks: list[bytes]) -> None:
        self._steps, self._chunks, self.socket = steps, chunks, readable
        self.given = self.told = b""

    async def receive_some(self, size: int) -> bytes:
        await self._steps.step()
        chunk = self._chunks.pop(0) if self._chunks else b""
        self.given += chunk
        return chunk

    async def send_all(self, data: bytes) -> None:
        await self._steps.step()
        self.told += data


@pytest.mark.parametrize("last", [b"cut o", b""])
@pytest.mark.parametrize("idle", [None, "1h"])
async def test_what_was_read_is_handed_over_wherever_a_stop_comes(
    autojump_clock: trio.testing.MockClock,
    readable: socket.socket,
    last: bytes,
    idle: str | None,
) -> None:
    at, over = 0, False
    while not over:
        at += 1
        steps = Steps(at)
        store = Store(steps)
        peer = Peer(steps, readable, [b"one\ntwo\nthr", b"ee\nfour\n", b"five\n", last])
        options = SyslogOptions.model_validate({"listen": str(ADDRESS), "idle_timeout": idle})
        made = StreamListener(ADDRESS, options, cast("Intake", store), structlog.get_logger(),
                              activity := SourceActivity())  # fmt: skip
        with steps.scope:
            await made.serve_peer(
                cast("PeerStream", peer),
                AcceptedConnection(cast("Any", None), PEER, PEER, 0.0, 0.0),
            )
        over = steps.over
        assert store.taken == peer.given.splitlines(), f"stopped at await {at}"
        assert activity.held_bytes == 0
    assert at > 7


async def test_no_relp_frame_is_answered_that_is_not_stored(
    autojump_clock: trio.testing.MockClock, readable: socket.socket
) -> None:
    at, over = 0, False
    while not over:
        at += 1
        steps = Steps(at)
        store = Store(steps)
        frames = [
            b"1 open 0\n2 syslog 3 one\n3 sys",
            b"log 3 two\n",
            b"4 syslog 5 three\n5 close 0\n",
        ]
        peer = Peer(steps, readable, frames)
        options = SyslogOptions.model_validate({"listen": "relp://127.0.0.1"})
        made = RelpListener(ADDRESS, options, cast("Intake", store), structlog.get_logger(),
                            activity := SourceActivity())  # fmt: skip
        with steps.scope:
            await made.serve_peer(
                cast("PeerStream", peer),
                AcceptedConnection(cast("Any", None), PEER, PEER, 0.0, 0.0),
            )
        over = steps.over
        assert peer.told.count(b"rsp 6 200 OK") <= len(store.taken), f"stopped at await {at}"
        assert activity.held_bytes == 0
    assert store.taken == [b"one", b"two", b"three"]
    assert peer.told.endswith(b"5 rsp 0\n0 serverclose 0\n")
    assert at > 8
