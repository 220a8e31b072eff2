"""The three built-in receivers: syslog over UDP, CEF over TCP, JSON over HTTP, all on loopback."""

from __future__ import annotations

import hmac
import socket
import time
from contextlib import suppress
from typing import Final, Protocol

import trio

from siemrelay.demo.ledger import Ledger, Tally
from siemrelay.demo.messages import read_cef, read_json, read_syslog

HOST: Final = "127.0.0.1"

# Thousands of datagrams may wait while the view is being drawn; the system may allow less.
_UDP_BUFFER_BYTES: Final = 8 << 20
_READ_BYTES: Final = 64 * 1024

# A line of the demo has about 500 bytes; more without a line feed is a foreign sender.
_LINE_BYTES: Final = 64 * 1024

# The relay's requests have at most 1 MiB (`batch: {max_bytes}`).
_BODY_BYTES: Final = 4 << 20

# An orderly shutdown reads on until the relay has closed its side, a millisecond on loopback.
_GOODBYE_S: Final = 2.0

# Connections that the kernel keeps for a receiver that is busy; there is one sender.
_BACKLOG: Final = 16


class Receiver(Protocol):
    """The base of the three."""

    tally: Tally

    async def bind(self) -> int:
        """Take a free port and return it."""

    async def run(self) -> None:
        """Count for ever."""


class UdpReceiver:
    """RFC 5424 messages, one a datagram."""

    def __init__(self, ledger: Ledger) -> None:
        self.tally = Tally(ledger)
        self._socket = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UDP_BUFFER_BYTES)

    async def bind(self) -> int:
        """Take a free port and return it."""
        await self._socket.bind((HOST, 0))
        return int(self._socket.getsockname()[1])

    async def run(self) -> None:
        """Count for ever."""
        with self._socket:
            while True:
                message = await self._socket.recv(_READ_BYTES)
                self.tally.take(read_syslog(message), message, time.time())


class TcpReceiver:
    """CEF, a line each; can be taken down and up again on the same port."""

    def __init__(self, ledger: Ledger) -> None:
        self.tally = Tally(ledger)
        # Bound, never listening: reserves the port while the receiver is down, also against the
        # kernel's choice of a local port for the relay's own connection attempts.
        self._hold = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._hold.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._streams: set[trio.SocketStream] = set()
        self._want_up, self._want_down = trio.Event(), trio.Event()
        self._want_up.set()

    @property
    def is_up(self) -> bool:
        """Whether it is meant to be reachable."""
        return self._want_up.is_set()

    async def bind(self) -> int:
        """Take a free port and return it."""
        await self._hold.bind((HOST, 0))
        return int(self._hold.getsockname()[1])

    def take_down(self) -> None:
        """Stop listening and end every connection, in order."""
        if self.is_up:
            self._want_up = trio.Event()
            self._want_down.set()

    def bring_up(self) -> None:
        """Listen again."""
        if not self.is_up:
            self._want_down = trio.Event()
            self._want_up.set()

    async def run(self) -> None:
        """Count for ever, whenever it is up."""
        with self._hold:
            while True:
                await self._want_up.wait()
                await self._serve()

    async def _serve(self) -> None:
        listener = await self._listen()
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                accepting.start_soon(self._accept, listener, connections)
                await self._want_down.wait()
                accepting.cancel_scope.cancel()
            # RFC 9293, 3.6: FIN first. A reset would discard bytes that are acknowledged already.
            connections.cancel_scope.deadline = trio.current_time() + _GOODBYE_S
            for stream in self._streams:
                with suppress(OSError):
                    stream.socket.shutdown(socket.SHUT_WR)

    async def _listen(self) -> trio.SocketListener:
        sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        await sock.bind((HOST, self._hold.getsockname()[1]))
        sock.listen(_BACKLOG)
        return trio.SocketListener(sock)

    async def _accept(self, listener: trio.SocketListener, connections: trio.Nursery) -> None:
        async with listener:
            await trio.serve_listeners(self._read, [listener], handler_nursery=connections)

    async def _read(self, stream: trio.SocketStream) -> None:
        self._streams.add(stream)
        # An incomplete line has not arrived: the relay sends it again.
        rest = b""
        try:
            async with stream:
                async for data in stream:
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        self.tally.take(read_cef(line), line, time.time())
                    if len(rest) > _LINE_BYTES:
                        return
        except trio.BrokenResourceError:
            return  # the sender is gone; complete lines are counted
        finally:
            self._streams.discard(stream)


class HttpReceiver:
    """Takes NDJSON bodies by POST /events with the token."""

    def __init__(self, ledger: Ledger, token: str) -> None:
        self.tally = Tally(ledger)
        self._authorization = f"Bearer {token}".encode()
        self._listener: trio.SocketListener

    async def bind(self) -> int:
        """Take a free port and return it."""
        (self._listener,) = await trio.open_tcp_listeners(0, host=HOST)
        return int(self._listener.socket.getsockname()[1])

    async def run(self) -> None:
        """Answer for ever."""
        async with self._listener:
            await trio.serve_listeners(self._connection, [self._listener])

    async def _connection(self, stream: trio.SocketStream) -> None:
        import h11  # only the demo's receiver and the endpoint need it

        http = h11.Connection(h11.SERVER)
        head: h11.Request | None = None
        body = b""
        try:
            async with stream:
                while True:
                    event = http.next_event()
                    if event is h11.NEED_DATA:
                        http.receive_data(await stream.receive_some(_READ_BYTES))
                    elif isinstance(event, h11.Request):
                        head, body = event, b""
                    elif isinstance(event, h11.Data):
                        body += event.data
                        if len(body) > _BODY_BYTES:
                            return
                    elif isinstance(event, h11.EndOfMessage) and head is not None:
                        status = self._answer(head.method, head.target, dict(head.headers), body)
                        answer = h11.Response(status_code=status, headers=[("Content-Length", "0")])
                        data = (http.send(answer) or b"") + (http.send(h11.EndOfMessage()) or b"")
                        await stream.send_all(data)
                        if http.our_state is not h11.DONE:
                            return
                        http.start_next_cycle()
                    else:
                        return
        except (trio.BrokenResourceError, h11.RemoteProtocolError):
            return  # the sender is gone or does not speak HTTP; it sends again

    def _answer(
        self, method: bytes, target: bytes, headers: dict[bytes, bytes], body: bytes
    ) -> int:
        # Check everything before counting anything.
        if not hmac.compare_digest(headers.get(b"authorization", b""), self._authorization):
            return 401
        if target != b"/events":
            return 404
        if method != b"POST":
            return 405
        now = time.time()
        for line in body.splitlines():
            self.tally.take(read_json(line), line, now)
        return 200
