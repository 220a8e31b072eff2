"""TCP out, proven through the kernel: a message counts when the peer's kernel has acknowledged it.

SIOCOUTQ says how many sent bytes the peer has not acknowledged yet; what had no acknowledgement
when a connection broke is sent again (other relays lose that window). It proves that the bytes
reached the peer's machine, not that the program there has stored them: plain TCP has no word for
that.
"""

from __future__ import annotations

import socket
import struct
import termios
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from fcntl import ioctl
from typing import Final, Literal

import trio
from pydantic import Field

from siemrelay.errors import SinkWaits
from siemrelay.options import Duration, Options, Port, show_seconds
from siemrelay.sinks.contract import Report, Settlement, no_report
from siemrelay.wire.framing import FRAMERS

# Asking the kernel starts at a loopback's round trip and settles at a WAN's.
_FIRST_ASK_S: Final = 0.0005
_SLOWEST_ASK_S: Final = 0.05

# What a syslog peer may say (nothing, by the protocols): read to notice that it closed.
_READ_BYTES: Final = 4096

# linux/include/net/tcp_states.h; the first byte of TCP_INFO. In CLOSE_WAIT the peer has ended its
# side in good order: what it acknowledged before that, it has.
_TCP_ESTABLISHED: Final = 1
_TCP_CLOSE_WAIT: Final = 8

# One write's size: large enough to keep the socket full, small enough to notice a stall early.
_WRITE_BYTES: Final = 256 * 1024


class TcpOptions(Options):
    """What a TCP sink may set."""

    server: str = Field(min_length=1, description="host name or address of the receiver")
    port: Port = Field(514, description="its TCP port")
    framing: Literal["newline", "octet-counting", "nul"] = Field(
        "newline", description="how messages are told apart (RFC 6587)"
    )
    timeout: Duration = Field(
        30.0, gt=0, description="to connect, and how long the peer may take nothing"
    )


class TcpSink:
    """Messages over one TCP connection."""

    def __init__(self, options: TcpOptions) -> None:
        self._options = options
        self._frame = FRAMERS[options.framing]

    @asynccontextmanager
    async def session(self, report: Report = no_report) -> AsyncIterator[StreamSession]:
        """See `sinks.contract.Sink`."""
        stream = await connect_tcp(
            self._options.server, self._options.port, self._options.timeout, report
        )
        async with stream, open_session(stream, self._frame, self._options.timeout, report) as made:
            yield made


async def connect_tcp(
    server: str, port: int, timeout_s: float, report: Report
) -> trio.SocketStream:
    """A connection whose dead peer is noticed. Raises SinkWaits with what to look at."""
    where = f"{server} port {port}"
    try:
        with trio.fail_after(timeout_s):
            found = await trio.socket.getaddrinfo(server, port, type=socket.SOCK_STREAM)
            report("resolve", ", ".join(dict.fromkeys(str(entry[4][0]) for entry in found)))
            stream = await trio.open_tcp_stream(server, port)
    except trio.TooSlowError as error:
        raise SinkWaits(
            f"no answer from {where} within {show_seconds(timeout_s)}; is a firewall in the way?"
        ) from error
    except (socket.gaierror, UnicodeError) as error:
        said = getattr(error, "strerror", None) or "not a host name"
        raise SinkWaits(f"cannot resolve {server!r}: {said}; check `server`") from error
    except OSError as error:
        raise SinkWaits(f"cannot connect to {where}: {_reason(error)}") from error
    try:
        _prepare(stream, where, timeout_s)
        name = stream.socket.getpeername()
    except BaseException as error:
        await trio.aclose_forcefully(stream)
        if isinstance(error, OSError):  # it was reset already
            raise SinkWaits(f"cannot connect to {where}: {_reason(error)}") from error
        raise
    report("connect", f"{name[0]} port {name[1]}")
    return stream


def _prepare(stream: trio.SocketStream, where: str, timeout_s: float) -> None:
    if stream.socket.getpeername() == stream.socket.getsockname():
        # Connecting to a free port of this machine's own ephemeral range can meet itself, and
        # then the kernel acknowledges bytes that nobody reads.
        raise SinkWaits(f"cannot connect to {where}: nobody listens there")
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Bytes that nobody acknowledges for so long break the connection, instead of for 15 minutes.
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout_s * 1000))


def _reason(error: OSError) -> str:
    causes = error.__cause__.exceptions if isinstance(error.__cause__, BaseExceptionGroup) else ()
    said = dict.fromkeys(str(getattr(cause, "strerror", None) or cause) for cause in causes)
    text = ", ".join(said) or error.strerror or str(error)
    return f"{text}; is the receiver running there?" if "refused" in text.casefold() else text


@asynccontextmanager
async def open_session(
    stream: trio.SocketStream,
    frame: Callable[[Sequence[bytes]], bytes],
    timeout_s: float,
    report: Report,
) -> AsyncIterator[StreamSession]:
    """A session on a connected stream, watched for the peer's close until the context ends."""
    session = StreamSession(stream, frame, timeout_s, report)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.watch)
            yield session
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # The watcher and the sender notice the same break: one reason is enough.
        waits, rest = group.split(SinkWaits)
        if rest is not None:
            raise rest from None  # a stop, or what the body raised: it matters more
        assert waits is not None
        raise _leaf(waits) from group


def _leaf(group: BaseExceptionGroup[SinkWaits]) -> SinkWaits:
    first = group.exceptions[0]
    return _leaf(first) if isinstance(first, BaseExceptionGroup) else first


class StreamSession:
    """One connection's life; see `sinks.contract.Session`. Tickets are byte offsets."""

    def __init__(
        self,
        stream: trio.SocketStream,
        frame: Callable[[Sequence[bytes]], bytes],
        timeout_s: float,
        report: Report,
    ) -> None:
        self._stream, self._frame = stream, frame
        self._timeout_s, self._report = timeout_s, report
        self._sent_bytes = self._confirmed_bytes = 0
        self._closed_by_peer = False

    async def send(self, messages: Sequence[bytes]) -> int:
        if self._closed_by_peer:
            raise SinkWaits("the peer closed the connection")
        data = memoryview(self._frame(messages))
        self._report("send", f"{len(data)} bytes")
        for start in range(0, len(data), _WRITE_BYTES):
            chunk = data[start : start + _WRITE_BYTES]
            try:
                with trio.fail_after(self._timeout_s):
                    await self._stream.send_all(chunk)
            except trio.TooSlowError as error:
                raise self._stalled() from error
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise SinkWaits(f"the connection broke while sending: {_cause(error)}") from error
            self._sent_bytes += len(chunk)
        return self._sent_bytes

    async def confirm(self, ticket: int) -> Settlement:
        pause, progress_at, last = _FIRST_ASK_S, trio.current_time(), -1
        while (confirmed := self._sent_bytes - self._unacknowledged()) < ticket:
            if confirmed != last:
                last, progress_at = confirmed, trio.current_time()
            elif trio.current_time() - progress_at > self._timeout_s:
                raise self._stalled()
            await trio.sleep(pause)
            pause = min(pause * 2, _SLOWEST_ASK_S)
        self._confirmed_bytes = ticket
        self._report("answer", "the peer's kernel acknowledged every byte (TCP says no more)")
        return ()

    def _unacknowledged(self) -> int:
        """Bytes sent and not acknowledged; raises SinkWaits when the connection is not whole."""
        sock = self._stream.socket
        (count,) = struct.unpack("i", ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))
        # A reset empties the kernel's queue: zero proves something only on a connection that is
        # found whole *after* it was read; checked by
        # test_bytes_lost_to_a_reset_are_not_taken_for_acknowledged.
        state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        if state not in (_TCP_ESTABLISHED, _TCP_CLOSE_WAIT):
            raise SinkWaits("the peer closed the connection before it acknowledged everything")
        return int(count)

    def _stalled(self) -> SinkWaits:
        return SinkWaits(
            f"the peer has taken nothing for {show_seconds(self._timeout_s)}; is it overloaded?"
        )

    async def watch(self) -> None:
        """Read what the peer says and drop it; raises SinkWaits when it closes.

        After a close in good order, what was sent before it may still be confirmed.
        """
        try:
            while await self._stream.receive_some(_READ_BYTES):
                pass
        except trio.BrokenResourceError as error:
            raise SinkWaits(f"the connection broke: {_cause(error)}") from error
        except trio.ClosedResourceError:
            return
        self._closed_by_peer = True
        with trio.move_on_after(self._timeout_s):
            while self._confirmed_bytes < self._sent_bytes:
                self._unacknowledged()
                await trio.sleep(_SLOWEST_ASK_S)
        raise SinkWaits("the peer closed the connection")


def _cause(error: BaseException) -> str:
    cause = error.__cause__
    return str(getattr(cause, "strerror", None) or cause or error)
