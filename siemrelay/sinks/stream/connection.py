"""A connection to a stream receiver, TCP or Unix, plain or in TLS, that counts delivered bytes.

SIOCOUTQ (tcp(7)) is the number of written bytes that the peer has not acknowledged yet; on a Unix
socket, that it has not read. Bytes are counted below TLS, since the kernel counts TLS records.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import struct
import termios
from fcntl import ioctl
from typing import Any, Final

import trio

from siemrelay.core.errors import SinkWaits
from siemrelay.core.options import show_seconds
from siemrelay.net.tcp_client import CONNECT_S, Address, connect_tcp
from siemrelay.net.tls_client import CUT_OFF, TlsContexts, describe_tls, expires_at, tls_error
from siemrelay.sinks.contract import Report

# linux/include/net/tcp_states.h; the first byte of TCP_INFO. In CLOSE_WAIT the peer has closed its
# side in order: it has whatever it acknowledged before.
_TCP_ESTABLISHED: Final = 1
_TCP_CLOSE_WAIT: Final = 8

# One write's size: large enough to keep the socket full, small enough to notice a stall early.
_WRITE_BYTES: Final = 256 * 1024

# A peer that reads nothing gets no close_notify (TLS) and no close command (RELP) after this.
CLOSE_GRACE_S: Final = 1.0

# How a TLS server answers plain bytes: with a record of type alert (RFC 8446, 5.1).
TLS_ALERT: Final = b"\x15\x03"

_READ_BYTES: Final = 64 * 1024


class CountedStream(trio.abc.Stream):
    """A connected socket that counts the bytes written, and those that the peer has."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.socket_stream = stream
        self._descriptor = stream.socket.fileno()
        self._tcp = stream.socket.family != socket.AF_UNIX
        self.written_bytes = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See trio; counts the bytes once all of them are written."""
        await self.socket_stream.send_all(data)
        self.written_bytes += len(data)

    def send_now(self, data: memoryview) -> int:
        """Hand over what the kernel takes at once; returns how many bytes. Most writes fit whole.

        0 also when the connection is broken: `send_all` says how.
        """
        try:
            taken = os.write(self._descriptor, data)
        except OSError:
            return 0
        self.written_bytes += taken
        return taken

    async def wait_send_all_might_not_block(self) -> None:
        """See trio."""
        await self.socket_stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See trio."""
        data = await self.socket_stream.receive_some(max_bytes)
        if self._tcp:
            # A peer that answers in small pieces waits for the acknowledgement of each (Nagle).
            # Linux delays that by 40 ms unless this is set again after every read.
            self.socket_stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return data

    async def aclose(self) -> None:
        """See trio."""
        # Never that of another file: a closed one's number is given to the next.
        self._descriptor = -1
        await self.socket_stream.aclose()

    def acknowledged_bytes(self) -> int:
        """The number of `written_bytes` that the peer certainly has.

        Raises SinkWaits when the connection is broken or closed.
        """
        (queued,) = struct.unpack("i", ioctl(self._descriptor, termios.TIOCOUTQ, b"\0\0\0\0"))
        # A reset empties the kernel's queue too: an empty queue proves something only if the
        # connection is intact *after* the queue was read; checked by
        # test_bytes_lost_to_a_reset_are_not_taken_for_acknowledged.
        if not self._whole():
            raise SinkWaits("the peer closed the connection before it acknowledged everything")
        # A Unix socket's queue includes the kernel's overhead, so the result may be too small.
        return self.written_bytes - int(queued)

    def _whole(self) -> bool:
        sock = self.socket_stream.socket
        if self._tcp:
            state: int = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
            return state in (_TCP_ESTABLISHED, _TCP_CLOSE_WAIT)
        # A Unix peer that closes discards what it has not read, and marks this end before that.
        poll = select.poll()
        poll.register(sock.fileno(), 0)
        return not poll.poll(0)


class Connection(trio.abc.AsyncResource):
    """A connection on which a protocol can start. `tls` is None without TLS.

    End it by `close_politely`, or by `aclose` when it is broken or time is short.
    """

    def __init__(
        self, counted: CountedStream, timeout_s: float, tls: trio.SSLStream[CountedStream] | None
    ) -> None:
        self.counted, self.tls = counted, tls
        self.timeout_s = timeout_s
        self._stream: trio.abc.Stream = counted if tls is None else tls
        self._writing = False

    async def write(self, data: bytes) -> int:
        """Hand all of it to the kernel. Returns the count that `acknowledged_bytes` must reach.

        Yields to other tasks only if it has to wait. Raises SinkWaits when the peer takes nothing
        for `timeout_s` or the connection breaks. If cancelled, a part may be out: the connection
        can only be closed.
        """
        view = memoryview(data)
        # Stays set after a failure: half a frame is out, and nothing can follow it.
        self._writing = True
        # A deadline and trio's checks would cost a small batch more than its write.
        written = self.counted.send_now(view) if self.tls is None else 0
        for start in range(written, len(view), _WRITE_BYTES):
            try:
                with trio.fail_after(self.timeout_s):
                    await self._stream.send_all(view[start : start + _WRITE_BYTES])
            except trio.TooSlowError as error:
                raise self.stalled() from error
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise SinkWaits(f"the connection broke while sending: {cause_of(error)}") from error
        self._writing = False
        return self.counted.written_bytes

    async def read(self) -> bytes:
        """The peer's next bytes; empty when it has closed, in TLS with or without close_notify.

        Raises SinkWaits when the connection broke, SinkHolds when a TLS alert says why.
        """
        try:
            return bytes(await self._stream.receive_some(_READ_BYTES))
        except trio.BrokenResourceError as error:
            if isinstance(error.__cause__, ssl.SSLEOFError):
                return b""
            if isinstance(error.__cause__, ssl.SSLError):
                raise tls_error(error.__cause__) from error
            raise SinkWaits(f"the connection broke: {cause_of(error)}") from error

    def stalled(self) -> SinkWaits:
        """The error for a peer that has taken nothing for `timeout_s`."""
        return SinkWaits(
            f"the peer has taken nothing for {show_seconds(self.timeout_s)}; is it overloaded?"
        )

    async def close_politely(self, farewell: bytes = b"") -> None:
        """Close in order; takes a second at most, also when cancelled.

        `farewell` is sent first; the peer answers it by closing its side.
        """
        with trio.move_on_after(CLOSE_GRACE_S, shield=True):
            try:
                if farewell and not self._writing:
                    await self._stream.send_all(farewell)
                    while await self._stream.receive_some(_READ_BYTES):
                        pass
                if not self._writing:
                    await self._stream.aclose()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # it is gone already
        await self.aclose()

    async def aclose(self) -> None:
        """Close at once, without close_notify."""
        await _close(self.counted, self.tls)


async def _close(counted: CountedStream, tls: trio.SSLStream[CountedStream] | None) -> None:
    await trio.aclose_forcefully(counted)
    if tls is not None:
        # The stream holds a method of its own: it and OpenSSL's state, some 100 KiB together, would
        # stay until the collector runs.
        vars(tls).clear()


async def connect(
    address: Address, timeout_s: float, report: Report,
    contexts: TlsContexts | None = None, server_name: str | None = None,
) -> Connection:  # fmt: skip
    """Connect to that server, in TLS if there are `contexts`.

    Raises SinkWaits or SinkHolds with what to check. Nothing is left open then, nor when cancelled.
    """
    counted = CountedStream(await connect_tcp(address, timeout_s, report))
    if contexts is None:
        return Connection(counted, timeout_s, None)
    tls: trio.SSLStream[CountedStream] | None = None
    try:
        context = await trio.to_thread.run_sync(contexts.current)
        # A trailing dot makes a DNS name absolute; names in certificates have none.
        name = server_name or address.host.rstrip(".")
        tls = trio.SSLStream(counted, context, server_hostname=name)
        await _shake_hands(tls, address, timeout_s)
        report("tls", describe_tls(_secured(tls)))
        contexts.peer_expires_at = expires_at(_secured(tls))
        return Connection(counted, timeout_s, tls)
    except BaseException:
        await _close(counted, tls)
        raise


async def _shake_hands(
    tls: trio.SSLStream[CountedStream], address: Address, timeout_s: float
) -> None:
    ended = f"{address} ended the connection in the TLS handshake"
    hint = "does it speak TLS on this port, and may this machine connect?"
    within_s = min(timeout_s, CONNECT_S)
    try:
        with trio.fail_after(within_s):
            await tls.do_handshake()
    except trio.TooSlowError as error:
        raise SinkWaits(
            f"{address} did not answer in TLS within {show_seconds(within_s)}; does it speak TLS "
            "on this port? If not, choose a protocol without TLS"
        ) from error
    except trio.BrokenResourceError as error:
        cause = error.__cause__
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, CUT_OFF):
            raise tls_error(cause) from error
        raise SinkWaits(f"{ended}; {hint}") from error


def _secured(tls: trio.SSLStream[CountedStream]) -> Any:
    # trio forwards what belongs to the ssl module's object; its types do not say so.
    return tls


def cause_of(error: BaseException) -> str:
    """The message of the system's error behind one of trio's."""
    cause = error.__cause__
    return str(getattr(cause, "strerror", None) or cause or error)
