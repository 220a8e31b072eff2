"""The TCP sink against real sockets on loopback: what counts as confirmed, what a break costs."""

from __future__ import annotations

import itertools
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from siemrelay.core.errors import SinkWaits
from siemrelay.sinks.stream import session as stream_session
from siemrelay.sinks.stream import tcp
from siemrelay.sinks.stream.session import StreamSession
from siemrelay.sinks.stream.tcp import TcpOptions, TcpSink
from tests.support.receivers.sockets import LINGER_RESET
from tests.support.servers import free_port
from tests.support.sessions import long_probation


class Listener:
    """A bound and listening socket whose connections the test handles by itself."""

    def __init__(self, family: socket.AddressFamily = socket.AF_INET, buffer: int = 0) -> None:
        self.socket = trio.socket.socket(family, socket.SOCK_STREAM)
        if buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self._family = family
        self._accepted: list[trio.SocketStream] = []

    async def __aenter__(self) -> Listener:
        host = "127.0.0.1" if self._family == socket.AF_INET else "::1"
        await self.socket.bind((host, 0))
        self.socket.listen(1)
        self.host, self.port = host, self.socket.getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.socket.close()
        for stream in self._accepted:
            await trio.aclose_forcefully(stream)

    def sink(self, timeout: str = "5s", **options: object) -> TcpSink:
        return TcpSink(
            TcpOptions.model_validate(
                {"server": self.host, "port": self.port, "timeout": timeout, **options}
            )
        )

    async def accept(self) -> trio.SocketStream:
        """One connection; closed with the listener, unless the test closes it before."""
        stream = trio.SocketStream((await self.socket.accept())[0])
        self._accepted.append(stream)
        return stream


async def everything(stream: trio.SocketStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += await stream.receive_some()
    return data


def asked_so_often(
    session: StreamSession, times: int, monkeypatch: pytest.MonkeyPatch
) -> trio.Event:
    """An event that is set when the kernel has been asked so often from now on."""
    counted, asked = session.connection.counted, trio.Event()
    answer, answers = counted.acknowledged_bytes, itertools.count(1)

    def counting() -> int:
        if next(answers) == times:
            asked.set()
        return answer()

    monkeypatch.setattr(counted, "acknowledged_bytes", counting)
    return asked


@asynccontextmanager
async def confirming(session: StreamSession, ticket: int) -> AsyncIterator[trio.Event]:
    """The settler's part, beside what is done in the context: the event is set when it is over."""
    confirmed = trio.Event()

    async def confirm() -> None:
        await session.confirm(ticket)
        confirmed.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(confirm)
        await wait_all_tasks_blocked()
        yield confirmed


def reset(stream: trio.SocketStream) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
    stream.socket.close()


@pytest.mark.parametrize(
    ("framing", "expected"),
    [
        ("newline", b"one\ntwo \xc3\xa9\n"),
        ("octet-counting", b"3 one6 two \xc3\xa9"),
        ("nul", b"one\0two \xc3\xa9\0"),
    ],
)
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
async def test_messages_arrive_framed_and_are_confirmed(
    framing: str, expected: bytes, family: socket.AddressFamily
) -> None:
    steps: list[str] = []
    async with Listener(family) as listener:
        sink = listener.sink(framing=framing)
        async with sink.session(lambda step, detail: steps.append(step)) as session:
            peer = await listener.accept()
            ticket = await session.send([b"one", "two é".encode()])
            assert await session.confirm(ticket) == ()
            assert await everything(peer, len(expected)) == expected
    assert steps == ["resolve", "connect", "send", "answer"]


async def test_a_batch_is_confirmed_when_it_is_sent_only_if_the_peer_has_all_of_it() -> None:
    async with Listener(buffer=4096) as listener, listener.sink().session() as session:
        await session.confirm(await session.send([b"the first outlives a probation"]))
        peer = await listener.accept()
        assert session.is_confirmed(await session.send([b"small"]))
        assert not session.is_confirmed(await session.send([bytes(20_000)]))
        ticket = await session.send([b"after the break"])
        reset(peer)
        assert not session.is_confirmed(ticket)


async def test_what_was_acknowledged_once_stays_confirmed_after_a_break() -> None:
    async with Listener() as listener, listener.sink().session() as session:
        await session.confirm(await session.send([b"the first outlives a probation"]))
        peer = await listener.accept()
        tickets = [await session.send([b"%d" % n]) for n in range(3)]
        await session.confirm(tickets[-1])
        assert session.is_confirmed(tickets[1])
        reset(peer)
        assert session.is_confirmed(tickets[0])


async def test_confirming_waits_until_the_peer_has_room_for_every_byte() -> None:
    async with Listener(buffer=64 * 1024) as listener:
        async with listener.sink().session() as session:
            peer = await listener.accept()
            confirmed = trio.Event()
            message = b"x" * 150_000
            # Room on this side for all of it, on that side for a part.
            stream = session.connection.counted.socket_stream
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)

            async def send() -> None:
                await session.confirm(await session.send([message]))
                confirmed.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                with trio.move_on_after(0.2):
                    await confirmed.wait()
                assert not confirmed.is_set()  # the peer's kernel has no room yet
                await everything(peer, len(message) + 1)
                with trio.fail_after(5):
                    await confirmed.wait()


async def test_a_confirmation_asks_at_once_when_the_sender_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It asks seldom for few bytes; meanwhile the sender may have filled all that may be in flight.

    A rush over loopback stood still for 44 ms at a time.
    """
    async with Listener(buffer=4096) as listener, listener.sink().session() as session:
        await session.confirm(await session.send([b"the first outlives a probation"]))
        peer = await listener.accept()
        monkeypatch.setattr(stream_session, "_SLOWEST_ASK_S", 1000.0)
        async with confirming(session, await session.send([bytes(20_000)])) as confirmed:
            await everything(peer, 20_000)
            assert not confirmed.is_set()
            session.hurry()
            with trio.fail_after(5):
                await confirmed.wait()


async def test_the_probation_ends_early_only_when_the_peer_has_read_more_than_a_buffer_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A rush is over before a probation is, and no more than 4 MiB are sent without an answer."""
    monkeypatch.setattr(tcp, "_PROBATION_S", 1000.0)
    async with Listener() as listener, listener.sink().session() as session:
        peer = await listener.accept()
        ticket = await session.send([bytes(60_000)])
        async with confirming(session, ticket) as confirmed:
            asked = asked_so_often(session, 3, monkeypatch)
            session.hurry()
            await asked.wait()
            assert not confirmed.is_set()  # its kernel has them all, but nobody reads
            async with trio.open_nursery() as nursery:
                nursery.start_soon(everything, peer, 4 << 20)
                await session.send([bytes(4 << 20)])
            session.hurry()
            with trio.fail_after(5):
                await confirmed.wait()


@pytest.mark.parametrize("size", [10, 60_000])
async def test_bytes_lost_to_a_reset_are_not_taken_for_acknowledged(size: int) -> None:
    """A reset empties the sender's queue just as an acknowledgement would."""
    async with Listener(buffer=4096) as listener:
        with pytest.raises(SinkWaits):  # noqa: PT012  (any of it may be where the break shows)
            async with listener.sink().session() as session:
                peer = await listener.accept()
                await session.send([b"read by nobody" * 1000])
                reset(peer)
                ticket = await session.send([b"x" * size])
                await session.confirm(ticket)


async def test_a_peer_that_closes_with_unread_data_confirms_nothing_more() -> None:
    async with Listener(buffer=64 * 1024) as listener:

        async def close() -> None:
            peer = await listener.accept()
            await wait_all_tasks_blocked(0.05)
            await peer.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(close)
            with long_probation(), trio.fail_after(10):
                with pytest.raises(SinkWaits):
                    async with listener.sink().session() as session:
                        await session.confirm(await session.send([bytes(20_000)]))


async def test_what_was_acknowledged_before_a_close_in_good_order_is_confirmed() -> None:
    async with Listener() as listener:
        with pytest.raises(SinkWaits, match="closed"):  # noqa: PT012  (any of it may be where the break shows)
            async with listener.sink().session() as session:
                peer = await listener.accept()
                ticket = await session.send([b"last words"])
                await everything(peer, 11)
                await peer.aclose()
                await wait_all_tasks_blocked()
                with trio.CancelScope(shield=True):
                    assert await session.confirm(ticket) == ()
                await trio.sleep_forever()


async def test_a_peer_that_closes_while_idle_is_noticed_at_once() -> None:
    async with Listener() as listener:
        with trio.fail_after(5):
            with pytest.raises(SinkWaits, match="closed the connection"):  # noqa: PT012  (any of it may be where the break shows)
                async with listener.sink().session():
                    await (await listener.accept()).aclose()
                    await trio.sleep_forever()


@pytest.mark.parametrize(
    ("said", "soon_s", "why"),
    [
        (b"HTTP/1.0 400 no\r\n\r\n", 1000.0, "it sent: HTTP/1.0 400 no; does it expect TLS or ano"),
        (
            b"HTTP/1.0 400 no\r\n\r\n",
            -1.0,
            r"it sent: HTTP/1.0 400 no; does it expect another protoc",
        ),
        (b"", 1000.0, "does it expect TLS or another protocol on this port"),
        (b"", -1.0, "$"),
    ],
)
async def test_a_peer_that_is_slow_to_refuse_the_protocol_is_told_from_one_that_closes(
    said: bytes, soon_s: float, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp, "_PROBATION_S", 0.001)
    monkeypatch.setattr(stream_session, "_REFUSES_WITHIN_S", soon_s)
    why = "^the peer closed the connection" + ("; " if why != "$" else "") + why
    async with Listener() as listener:
        with trio.fail_after(20), pytest.raises(SinkWaits, match=why):  # noqa: PT012  (any of it may be where the break shows)
            async with listener.sink().session() as session:
                await session.confirm(await session.send([b"one"]))
                peer = await listener.accept()
                await peer.send_all(said)
                await everything(peer, 4)  # what is unread at a close would reset the connection
                await peer.aclose()
                await trio.sleep_forever()


async def test_what_the_peer_says_is_read_and_dropped() -> None:
    async with Listener() as listener:
        async with listener.sink().session() as session:
            peer = await listener.accept()
            await peer.send_all(b"hello, I am a chatty receiver\n" * 1000)
            await session.confirm(await session.send([b"one"]))


@pytest.mark.parametrize("messages", [1, 400])
async def test_a_peer_that_never_reads_is_given_up_after_the_timeout(messages: int) -> None:
    async with Listener(buffer=4096) as listener:
        with trio.fail_after(10):
            with pytest.raises(SinkWaits, match=r"taken nothing for|broke"):  # noqa: PT012  (any of it may be where the break shows)
                async with listener.sink(timeout="300ms").session() as session:
                    await listener.accept()
                    ticket = await session.send([b"x" * 60_000] * messages)
                    await session.confirm(ticket)


async def test_a_port_where_nobody_listens_is_said_to_refuse() -> None:
    sink = TcpSink(TcpOptions(server="127.0.0.1", port=free_port()))
    with pytest.raises(SinkWaits, match=r"refused; is the receiver running there\?"):
        async with sink.session():
            pass


@pytest.mark.parametrize("server", ["no-such-host.invalid", "a" * 70 + ".example", "bad..name"])
async def test_a_name_that_cannot_be_resolved_is_said_to_be_so(server: str) -> None:
    sink = TcpSink(TcpOptions(server=server, port=514))
    with pytest.raises(SinkWaits, match="check `server`"):
        async with sink.session():
            pass


async def test_a_message_of_many_megabytes_goes_through() -> None:
    message = os.urandom(1 << 20).hex().encode() * 4
    async with Listener() as listener:
        async with listener.sink().session() as session:
            peer = await listener.accept()
            got: list[bytes] = []

            async def read() -> None:
                got.append(await everything(peer, len(message) + 1))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await session.confirm(await session.send([message]))
    assert got == [message + b"\n"]


def test_the_reset_option_is_what_the_kernel_calls_linger_zero() -> None:
    assert struct.unpack("ii", LINGER_RESET) == (1, 0)
