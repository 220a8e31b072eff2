"""The UDP sink against real sockets on loopback."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from siemrelay.core.errors import SinkWaits
from siemrelay.sinks.stream.udp import MAX_DATAGRAM_BYTES, DatagramPacer, UdpOptions, UdpSink
from tests.support.daemon import until
from tests.support.programs.rsyslogd import Rsyslogd
from tests.support.servers import free_port


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


@pytest.mark.parametrize("rate", [1, 10, 5000, 1_000_000])
@pytest.mark.parametrize("datagram_bytes", [1, 1023, 1024, 65507])
async def test_no_moment_has_more_datagrams_than_the_rate_and_a_few_at_once(
    autojump_clock: object, rate: int, datagram_bytes: int
) -> None:
    pacer, began_s = DatagramPacer(rate), trio.current_time()
    weight, sent = 1 + datagram_bytes // 1024, 0
    for _ in range(200):
        await pacer.wait(datagram_bytes)
        sent += weight
        elapsed_s = trio.current_time() - began_s
        assert sent <= max(32, weight) + rate * elapsed_s + 1e-6
    # And it is no slower than that: half of those at once are what it waits for too long.
    assert elapsed_s <= sent / rate


async def test_what_comes_slower_than_the_rate_never_waits(autojump_clock: object) -> None:
    pacer = DatagramPacer(100)
    for _ in range(100):
        await trio.sleep(0.01)
        before_s = trio.current_time()
        await pacer.wait(400)
        assert trio.current_time() == before_s


async def test_a_backlog_reaches_rsyslog_without_a_gap(tmp_path: Path) -> None:
    """As the default has it, into the receive buffer that the kernel gives by default."""
    port, count = free_port(socket.SOCK_DGRAM), 5000
    modules = (
        'module(load="imtcp")\nmodule(load="imudp")\n'
        f'input(type="imudp" address="127.0.0.1" port="{port}" ruleset="keep")'
    )
    with Rsyslogd(tmp_path, modules, 'type="imtcp" address="127.0.0.1"') as rsyslog:
        sink = UdpSink(UdpOptions(server="127.0.0.1", port=port))
        sent = [b"<134>1 - h app - - - %05d %s" % (n, b"x" * 300) for n in range(count)]
        async with sink.session() as session:
            for start in range(0, count, 500):
                batch = sent[start : start + 500]
                assert await session.confirm(await session.send(batch)) == []
        await trio.to_thread.run_sync(lambda: until(lambda: len(rsyslog.messages) == count))
        assert rsyslog.messages == sent
