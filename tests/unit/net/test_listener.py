"""Slots of connections: whom a limit counts as one peer, and which connection gives way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
import structlog
import trio

from siemrelay.net.listener import AcceptedConnection, ConnectionLimiter
from siemrelay.net.peers import group_of
from siemrelay.net.rejection_log import RejectionLog
from siemrelay.net.tasks import Broadcast

NOTHING = structlog.get_logger()


@pytest.mark.parametrize(
    ("peer", "group"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),  # IPv4 on a socket for both
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("user 1000", "user 1000"),
    ],
)
def test_all_addresses_of_an_ipv6_network_of_64_bits_count_as_one_peer(
    peer: str, group: str
) -> None:
    assert group_of(peer) == group


class Listener:
    """A limiter that serves on a free port of IPv6's or IPv4's loopback address."""

    def __init__(self, name: str, most: int, *, of_all: int = 100, apart: bool = False) -> None:
        self.refused: list[tuple[str, int]] = []
        self.open: list[AcceptedConnection] = []
        self._changed = Broadcast()
        log = RejectionLog(NOTHING, name, self._refuse)
        self._limiter = ConnectionLimiter(
            [], most, log, most_of_one=most, apart=apart, most_of_all=of_all
        )

    def _refuse(self, reason: str, count: int) -> None:
        self.refused.append((reason, count))
        self._changed.wake_all()

    async def start(
        self, nursery: trio.Nursery, clients: AsyncExitStack, *, proven: bool = False
    ) -> Callable[[], Awaitable[trio.SocketStream]]:
        """Begin to serve; returns what connects to it, until the stack of clients ends."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]

        async def handle(connection: AcceptedConnection) -> None:
            connection.proven = proven
            self.open.append(connection)
            self._changed.wake_all()
            try:
                while await connection.stream.receive_some(1):
                    connection.active_at = trio.current_time()
            finally:
                self.open.remove(connection)

        nursery.start_soon(self._limiter.serve, [listener.socket], handle)

        async def connect() -> trio.SocketStream:
            before = len(self.open)
            stream = await clients.enter_async_context(
                await trio.open_tcp_stream("127.0.0.1", port)
            )
            with trio.fail_after(10):
                while len(self.open) <= before and not self.refused:
                    await self._changed.wait()
            return stream

        return connect


async def test_the_listener_with_most_connections_gives_one_to_a_smaller_one() -> None:
    """Together they have ten slots; the endpoint, which has its own, answers all the while."""
    crowded, small = Listener("crowded", 10, of_all=10), Listener("small", 10, of_all=10)
    endpoint = Listener("endpoint", 1, apart=True)
    async with AsyncExitStack() as clients, trio.open_nursery() as nursery:
        connect = await crowded.start(nursery, clients)
        for _ in range(10):
            await connect()
        connect_small = await small.start(nursery, clients)
        for _ in range(3):
            await connect_small()
        assert len(small.open) == 3
        assert [reason for reason, _ in crowded.refused] == ["displaced"] * 3
        assert not small.refused
        await (await endpoint.start(nursery, clients))()
        assert len(endpoint.open) == 1
        nursery.cancel_scope.cancel()


async def test_bytes_that_are_no_message_keep_no_slot_and_credentials_do() -> None:
    """Ten that dribble, one that has shown a certificate and is quiet: one of the ten goes."""
    # Twelve slots: eleven connections, and the one for which the quiet listener waits.
    dribbling, quiet = Listener("logs", 12, of_all=12), Listener("certified", 12, of_all=12)
    async with AsyncExitStack() as clients, trio.open_nursery() as nursery:
        await (await quiet.start(nursery, clients, proven=True))()
        connect = await dribbling.start(nursery, clients)
        streams = [await connect() for _ in range(10)]

        async def dribble() -> None:
            while True:
                for stream in streams:
                    try:
                        await stream.send_all(b"x")
                    except trio.BrokenResourceError:
                        continue
                await trio.sleep(0.1)

        nursery.start_soon(dribble)
        await trio.sleep(1.1)
        await connect()
        assert [reason for reason, _ in dribbling.refused] == ["displaced"]
        assert len(quiet.open) == 1
        assert not quiet.refused
        nursery.cancel_scope.cancel()
