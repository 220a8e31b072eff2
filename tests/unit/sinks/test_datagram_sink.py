"""The UDP sink against real sockets on loopback."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio

from siemrelay.core.errors import SinkWaits
from siemrelay.sinks.stream.udp import MAX_DATAGRAM_BYTES, UdpOptions, UdpSink


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6])
def receiver(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with socket.socket(request.param, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1" if request.param == socket.AF_INET else "::1", 0))
        sock.settimeout(5)
        yield sock


def sink_to(receiver: socket.socket) -> UdpSink:
    host, port = receiver.getsockname()[:2]
    return UdpSink(UdpOptions(server=host, port=port))


async def test_each_message_is_one_datagram(receiver: socket.socket) -> None:
    messages = [b"one", b"two\nlines", b"x" * 20_000]
    async with sink_to(receiver).session() as session:
        assert await session.confirm(await session.send(messages)) == []
    assert [receiver.recv(1 << 16) for _ in messages] == messages


async def test_a_message_too_large_for_a_datagram_is_refused_and_the_others_go_on(
    receiver: socket.socket,
) -> None:
    large = b"x" * (MAX_DATAGRAM_BYTES + 100)
    async with sink_to(receiver).session() as session:
        refused = await session.confirm(await session.send([b"one", large, b"two", large]))
        assert [(refusal.index, refusal.code) for refusal in refused] == [
            (1, "EMSGSIZE"),
            (3, "EMSGSIZE"),
        ]
        assert await session.confirm(await session.send([b"three"])) == []
    assert [receiver.recv(1 << 16) for _ in range(3)] == [b"one", b"two", b"three"]


async def test_the_largest_datagram_goes_through() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(5)
        async with sink_to(receiver).session() as session:
            assert await session.send([b"x" * MAX_DATAGRAM_BYTES]) == []
        assert len(receiver.recv(1 << 16)) == MAX_DATAGRAM_BYTES


@pytest.mark.parametrize("count", [1, 5])
async def test_a_run_to_a_port_where_nobody_listens_is_not_confirmed(
    receiver: socket.socket, count: int
) -> None:
    sink = sink_to(receiver)
    receiver.close()
    for _ in range(2):
        with pytest.raises(SinkWaits, match="nobody listens there"):
            async with sink.session() as session:
                await session.confirm(await session.send([b"lost"] * count))


@pytest.mark.parametrize("server", ["no-such-host.invalid", "bad..name"])
async def test_a_name_that_cannot_be_resolved_is_said_to_be_so(server: str) -> None:
    with pytest.raises(SinkWaits, match="check `server`"):
        async with UdpSink(UdpOptions(server=server)).session():
            pass


async def test_a_long_run_lets_the_other_parts_have_their_turn(receiver: socket.socket) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with sink_to(receiver).session() as session, trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await session.send([b"x"] * 1000)
        nursery.cancel_scope.cancel()
    assert turns >= 10
