"""Several servers: the first that can be reached, and back to the first when it is there again."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from siemrelay.core.errors import SinkHolds, SinkWaits
from siemrelay.net.tcp_client import Address
from siemrelay.sinks.contract import Sink
from siemrelay.sinks.stream import failover as servers
from siemrelay.sinks.stream.relp import RelpOptions, RelpSink
from siemrelay.sinks.stream.servers import addresses
from siemrelay.sinks.stream.tcp import TcpOptions, TcpSink, TlsStreamOptions
from tests.conftest import MakeDaemon
from tests.support.daemon import QUICK_RETRY, append, event, ids, until
from tests.support.receivers.relp import RelpReceiver
from tests.support.receivers.sockets import TcpReceiver
from tests.support.servers import free_port
from tests.unit.sinks.test_tls_sink import Files, over_tls, serving


def tcp_to(*named: str, **options: Any) -> TcpSink:
    return TcpSink(TcpOptions(server=list(named), **options))


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("siem.example.com", ("siem.example.com", 514)),
        ("siem.example.com:6514", ("siem.example.com", 6514)),
        ("10.0.0.9:1", ("10.0.0.9", 1)),
        ("2001:db8::1", ("2001:db8::1", 514)),
        ("::1", ("::1", 514)),
        ("[2001:db8::1]", ("2001:db8::1", 514)),
        ("[2001:db8::1]:65535", ("2001:db8::1", 65535)),
    ],
)
def test_a_server_may_have_a_port_of_its_own(server: str, expected: tuple[str, int]) -> None:
    assert addresses(server, 514) == [expected]
    assert addresses([server, "b"], 514) == [expected, Address("b", 514)]
    assert TcpOptions(server=server).server == server


@pytest.mark.parametrize(
    "server", ["", "a:", ":1", "a:0", "a:65536", "a:x", "[::1", "[::1]1", "a[b]"]
)
def test_a_server_that_is_no_name_is_a_fault(server: str) -> None:
    with pytest.raises(ValueError, match="server"):
        TcpOptions(server=server)


async def test_the_first_server_that_takes_connections_gets_the_messages() -> None:
    steps: list[tuple[str, str]] = []
    with TcpReceiver() as third:
        sink = tcp_to(f"127.0.0.1:{free_port()}", "no-such-host.invalid", "127.0.0.1",
                      port=third.port)  # fmt: skip
        async with sink.session(lambda *step: steps.append(step)) as session:
            await session.confirm(await session.send([b"hello"]))
        await trio.to_thread.run_sync(until, lambda: len(third.arrived))
    assert third.arrived.messages == [b"hello"]
    passed_over = [detail for step, detail in steps if step == "failed"]
    assert len(passed_over) == 2
    assert "refused" in passed_over[0]
    assert "cannot resolve" in passed_over[1]


async def test_when_none_can_be_reached_each_is_named_with_its_reason() -> None:
    first, second = free_port(), free_port()
    with pytest.raises(SinkWaits) as raised:
        async with tcp_to(f"127.0.0.1:{first}", f"127.0.0.1:{second}").session():
            pass
    assert raised.value.reason.count("refused") == 2
    assert f"port {first}" in raised.value.reason
    assert f"port {second}" in raised.value.reason


async def test_a_server_whose_certificate_is_not_accepted_is_passed_over(tmp_path: Path) -> None:
    files = Files(tmp_path)
    (tmp_path / "stranger").mkdir()
    stranger = Files(tmp_path / "stranger")
    async with serving(over_tls(stranger)) as wrong, serving(over_tls(files)) as right:

        def sink(*ports: int) -> TcpSink:
            return TcpSink(TlsStreamOptions.model_validate(
                {"server": [f"127.0.0.1:{port}" for port in ports], "timeout": "3s",
                 "tls": {"ca": str(files.ca)}}
            ))  # fmt: skip

        async with sink(wrong, right).session() as session:
            await session.confirm(await session.send([b"hello"]))
        with pytest.raises(SinkHolds, match="ca: FILE"):
            async with sink(wrong, wrong).session():
                pass
        # What may come back by itself is waited for, though the other needs a person.
        with pytest.raises(SinkWaits, match="ca: FILE"):
            async with sink(wrong, free_port()).session():
                pass


async def test_a_relp_server_that_refuses_the_session_is_passed_over() -> None:
    unwilling, willing = RelpReceiver(offer=b"500 not now"), RelpReceiver()
    async with unwilling.listening() as first, willing.listening() as second:
        sink = RelpSink(RelpOptions(server=[f"127.0.0.1:{first}", f"127.0.0.1:{second}"]))
        async with sink.session() as session:
            assert await session.confirm(await session.send([b"hello"])) == []
    assert willing.messages == [b"hello"]


def to_tcp(first: int, second: int) -> Sink:
    return tcp_to(f"127.0.0.1:{first}", f"127.0.0.1:{second}")


def to_relp(first: int, second: int) -> Sink:
    return RelpSink(RelpOptions(server=[f"127.0.0.1:{first}", f"127.0.0.1:{second}"]))


@pytest.mark.parametrize("make", [to_tcp, to_relp])
async def test_a_session_goes_back_to_the_first_server_when_it_is_there_again(
    make: Callable[[int, int], Sink], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "FAIL_BACK_PROBE_S", 0.02)
    second = RelpReceiver()

    async def read(connection: trio.SocketStream) -> None:
        while await connection.receive_some():
            pass

    with closing(socket.socket()) as down:
        down.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        down.bind(("127.0.0.1", 0))
        port = down.getsockname()[1]
        listening = second.listening() if make is to_relp else serving(read)
        async with listening as other:
            sink, confirmed = make(port, other), 0
            with trio.fail_after(10), pytest.raises(SinkWaits, match="is back"):  # noqa: PT012 - the fault comes at an await within, whichever
                async with sink.session() as session:
                    for n in range(5):
                        await session.confirm(await session.send([b"%d" % n]))
                        confirmed += 1
                    down.listen(5)
                    async with trio.open_nursery() as nursery:
                        if make is to_relp:
                            home = trio.SocketListener(trio.socket.from_stdlib_socket(down.dup()))
                            nursery.start_soon(trio.serve_listeners, second.handle, [home])
                        while True:
                            await session.confirm(await session.send([b"%d" % confirmed]))
                            confirmed += 1
    if make is to_relp:
        assert second.messages == [b"%d" % n for n in range(confirmed)]


def test_the_daemon_loses_and_repeats_nothing_when_servers_take_turns(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver() as first, TcpReceiver(up=False) as second:
        daemon = make_daemon({"siem": {
            "protocol": "tcp", "format": "json", "retry": QUICK_RETRY, "timeout": "3s",
            "server": [f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"],
        }}).start()  # fmt: skip
        append(daemon.audit, map(event, range(1, 101)))
        until(lambda: len(first.arrived) == 100)
        until(lambda: daemon.metric("sink_backlog_records", sink="siem") == 0)
        first.down()
        second.up()
        append(daemon.audit, map(event, range(101, 201)))
        until(lambda: len(second.arrived) == 100)
        until(lambda: daemon.metric("sink_backlog_records", sink="siem") == 0)
        second.down()
        first.up()
        append(daemon.audit, map(event, range(201, 301)))
        until(lambda: len(first.arrived) == 200)
        assert first.arrived.ids + second.arrived.ids == ids(
            [*range(1, 101), *range(201, 301), *range(101, 201)]
        )
