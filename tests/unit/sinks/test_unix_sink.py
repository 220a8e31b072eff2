"""The sinks to Unix sockets: a stream that proves what was read, datagrams of any size."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from siemrelay.core.errors import DeliveryError, SinkHolds, SinkWaits
from siemrelay.sinks.stream.unix import (
    UnixgramSink,
    UnixOptions,
    UnixSink,
    UnixStreamOptions,
)
from tests.conftest import MakeDaemon
from tests.support.daemon import QUICK_RETRY, append, event, until
from tests.support.programs.rsyslogd import Rsyslogd


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "receiver.sock"


@pytest.fixture
def listener(path: Path) -> Iterator[socket.socket]:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as sock:
        sock.bind(str(path))
        sock.listen(1)
        sock.settimeout(5)
        yield sock


@pytest.fixture
def receiver(path: Path) -> Iterator[socket.socket]:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
        sock.bind(str(path))
        sock.settimeout(5)
        yield sock


def stream_to(path: Path, timeout: str = "5s", **options: Any) -> UnixSink:
    return UnixSink(
        UnixStreamOptions.model_validate({"path": str(path), "timeout": timeout, **options})
    )


def datagrams_to(path: Path, timeout: str = "5s") -> UnixgramSink:
    return UnixgramSink(UnixOptions.model_validate({"path": str(path), "timeout": timeout}))


def read(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += connection.recv(1 << 16)
    return data


async def fault(sink: UnixSink | UnixgramSink) -> DeliveryError:
    with pytest.raises(DeliveryError) as raised:
        async with sink.session() as session:
            await session.send([b"x"])
    return raised.value


# -- streams --------------------------------------------------------------


@pytest.mark.parametrize(
    ("framing", "expected"),
    [("newline", b"one\ntwo\n"), ("octet-counting", b"3 one3 two"), ("nul", b"one\0two\0")],
)
async def test_a_stream_is_confirmed_once_the_receiver_has_read_it_all(
    listener: socket.socket, path: Path, framing: str, expected: bytes
) -> None:
    async with stream_to(path, framing=framing).session() as session:
        with closing(listener.accept()[0]) as peer:
            ticket = await session.send([b"one", b"two"])
            with trio.move_on_after(0.1):
                await session.confirm(ticket)
                raise AssertionError("the receiver has read nothing yet")
            assert read(peer, len(expected)) == expected
            with trio.fail_after(5):
                assert await session.confirm(ticket) == ()


async def test_a_receiver_that_closes_with_messages_unread_has_confirmed_nothing(
    listener: socket.socket, path: Path
) -> None:
    with pytest.raises(SinkWaits):  # noqa: PT012  (any of it may be where the break shows)
        async with stream_to(path).session() as session:
            peer = listener.accept()[0]
            ticket = await session.send([b"one", b"two"])
            peer.recv(3)
            peer.close()
            await session.confirm(ticket)


async def test_a_receiver_that_reads_nothing_is_given_up_after_the_timeout(
    listener: socket.socket, path: Path
) -> None:
    with pytest.raises(SinkWaits, match="taken nothing for 200ms"):
        async with stream_to(path, timeout="200ms").session() as session:
            await session.confirm(await session.send([b"x" * 10_000_000]))


def test_the_daemon_delivers_to_a_stream_of_rsyslog(
    make_daemon: MakeDaemon, tmp_path: Path, path: Path
) -> None:
    with Rsyslogd(
        tmp_path, 'module(load="imptcp")', f'type="imptcp" path="{path}"', listens=path
    ) as server:
        daemon = make_daemon({"local": {
            "protocol": "unix", "path": str(path), "format": "json", "retry": QUICK_RETRY,
        }})  # fmt: skip
        append(daemon.audit, map(event, range(1, 3001)))
        daemon.start("--drain", ready=False)
        assert daemon.wait() == 0
        until(lambda: len(server.messages) == 3000)


# -- datagrams ------------------------------------------------------------


async def test_each_message_is_one_datagram(receiver: socket.socket, path: Path) -> None:
    messages = [b"one", b"two\nlines", b"x" * 60_000]
    async with datagrams_to(path).session() as session:
        assert await session.confirm(await session.send(messages)) == []
    assert [receiver.recv(1 << 17) for _ in messages] == messages


async def test_a_datagram_that_is_too_large_is_refused_and_the_others_go_on(
    receiver: socket.socket, path: Path
) -> None:
    async with datagrams_to(path).session() as session:
        ticket = await session.send([b"one", b"x" * (64 << 20), b"two"])
        (refusal,) = await session.confirm(ticket)
        assert (refusal.index, refusal.code) == (1, "EMSGSIZE")
    assert [receiver.recv(100), receiver.recv(100)] == [b"one", b"two"]


async def test_a_full_queue_waits_for_the_receiver(receiver: socket.socket, path: Path) -> None:
    messages = [b"%d" % n for n in range(2000)]
    got: list[bytes] = []
    async with datagrams_to(path).session() as session:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.send, messages)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await trio.to_thread.run_sync(lambda: got.extend(receiver.recv(100) for _ in messages))
    assert got == messages


async def test_a_queue_that_stays_full_is_given_up_after_the_timeout(
    receiver: socket.socket, path: Path
) -> None:
    with pytest.raises(SinkWaits, match="taken nothing for 200ms"):
        async with datagrams_to(path, timeout="200ms").session() as session:
            await session.send([b"x"] * 5000)


async def test_a_receiver_that_ends_meanwhile_is_waited_for(
    receiver: socket.socket, path: Path
) -> None:
    gone = r"the receiver is gone; is it running\?"
    with pytest.raises(SinkWaits, match=gone):  # noqa: PT012  (it goes within)
        async with datagrams_to(path).session() as session:
            receiver.close()
            await session.send([b"x"])


# -- what may be wrong with the path --------------------------------------


@pytest.mark.parametrize("make", [stream_to, datagrams_to])
async def test_a_path_without_a_socket_is_waited_for(make: Any, path: Path) -> None:
    found = await fault(make(path))
    assert isinstance(found, SinkWaits)
    assert f"there is no socket {path}" in found.reason


@pytest.mark.parametrize("make", [stream_to, datagrams_to])
async def test_a_socket_without_a_listener_is_waited_for(make: Any, path: Path) -> None:
    kind = socket.SOCK_STREAM if make is stream_to else socket.SOCK_DGRAM
    with closing(socket.socket(socket.AF_UNIX, kind)) as sock:
        sock.bind(str(path))
    found = await fault(make(path))
    assert isinstance(found, SinkWaits)
    assert "nobody listens" in found.reason


async def test_a_socket_of_the_other_kind_holds(receiver: socket.socket, path: Path) -> None:
    found = await fault(stream_to(path))
    assert isinstance(found, SinkHolds)
    assert "`unixgram` for datagrams" in found.advice


async def test_a_path_that_is_too_long_holds(tmp_path: Path) -> None:
    found = await fault(stream_to(tmp_path / ("x" * 120)))
    assert isinstance(found, SinkHolds)
    assert "shorter path" in found.advice
