"""HTTP/1.1 for sources: listens, lets in whom it may, and serves so many connections at a time."""

from __future__ import annotations

import ssl
from typing import Final

import trio

from siemrelay.net.http_connection import Connection, Stream, Traffic
from siemrelay.net.http_exchange import Application, Limits
from siemrelay.net.listener import ConnectionObserver, Door
from siemrelay.net.tls_server import ServerContexts

# With `--drain`, so long a silence after the last request counts as the end.
_QUIET_S: Final = 1.0

# The health check allows for minutes; a timer that ticks costs nothing.
_ALIVE_S: Final = 30.0


class Handshakes:
    """The server's side of TLS, with the context that is current at each connection."""

    def __init__(self, contexts: ServerContexts) -> None:
        self._contexts, self._lock = contexts, trio.Lock()

    async def prepare(self) -> ssl.SSLContext:
        """The context for the next connection. Raises TlsFilesUnusable when there never was one."""
        async with self._lock:
            return await trio.to_thread.run_sync(self._contexts.current)

    async def secure(self, stream: trio.SocketStream) -> trio.SSLStream[trio.SocketStream]:
        """The stream after its handshake.

        Raises OSError or BrokenResourceError if it fails or the client is not let in. If
        cancelled, the stream is of no use any more.
        """
        context = await self.prepare()
        secured = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        await secured.do_handshake()
        if not self._contexts.admits(secured.getpeercert(binary_form=True)):
            raise trio.BrokenResourceError("the client's certificate is not one of those let in")
        return secured


class HttpServer:
    """Serves one application to everybody who may connect, through the door."""

    def __init__(
        self,
        application: Application,
        observer: ConnectionObserver,
        limits: Limits,
        tls: Handshakes | None,
        door: Door,
        source: str,
    ) -> None:
        self._traffic = Traffic(application, observer, limits, source, trio.current_time())
        self._observer, self._tls, self._door = observer, tls, door

    async def run(self, listeners: list[trio.SocketListener], *, drain: bool) -> None:
        """Answer until cancelled; with `drain`, until nothing has been sent for a while.

        Closes the listeners and every connection.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._alive)
            sockets = [listener.socket for listener in listeners]
            nursery.start_soon(self._door.serve, sockets, self._connection)
            if drain:
                await self._quiet()
                nursery.cancel_scope.cancel()

    async def _quiet(self) -> None:
        traffic = self._traffic
        while True:
            left_s = traffic.arrived_at + _QUIET_S - trio.current_time()
            if left_s <= 0 and not traffic.under_way:
                return
            await trio.sleep(max(left_s, _QUIET_S / 10))

    async def _alive(self) -> None:
        while True:
            self._observer.progress()
            await trio.sleep(_ALIVE_S)

    async def _connection(self, stream: trio.SocketStream, _peer: str) -> None:
        self._observer.connected(1)
        self._traffic.arrived_at = trio.current_time()
        try:
            await self._serve(stream)
        except (OSError, ssl.SSLError, trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the sender went away, or does not speak TLS as it must
        finally:
            self._observer.connected(-1)

    async def _serve(self, plain: trio.SocketStream) -> None:
        stream: Stream = plain
        if self._tls is not None:
            with trio.move_on_after(self._traffic.limits.request_s) as scope:
                stream = await self._tls.secure(plain)
            if scope.cancelled_caught:
                return
        await Connection(self._traffic, stream).run()
