"""The endpoint for one machine's own use: its address and what serves it, across reloads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
import trio

from siemrelay.core.errors import StartRefused
from siemrelay.net.listening_sockets import BindAddress

_log = structlog.get_logger()


async def open_endpoint(address: tuple[str, int] | None) -> trio.SocketListener | None:
    """Take the address, or raise StartRefused; None when the endpoint is off."""
    if address is None:
        return None
    host, port = address
    try:
        (listener, *_) = await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        raise StartRefused(
            f"cannot listen on {host}:{port} for the endpoint: {error.strerror or error}; set "
            "`endpoint: {listen: ...}` to a free address, or to off"
        ) from error
    if port == 0:
        _log.info("endpoint listening", port=listener.socket.getsockname()[1])
    return listener


Pages = Callable[[trio.SocketListener], Awaitable[None]]
"""Answers requests at a listener until cancelled, and closes it: see `endpoint_pages.serve`."""


class Endpoint:
    """Serves pages at one address at a time; a reload changes address and pages without a gap."""

    def __init__(self, nursery: trio.Nursery) -> None:
        """The nursery owns the serving task."""
        self._nursery = nursery
        self._address: tuple[str, int] | None = None
        self._kept: trio.SocketListener | None = None
        self._pages: Pages | None = None
        self._scope, self._ended = trio.CancelScope(), trio.Event()

    async def change(self, address: tuple[str, int] | None, pages: Pages) -> None:
        """Serve these pages there, and nowhere else; None is nowhere.

        Raises StartRefused if the address cannot be taken; then the old one is served on.
        """
        before = self._address
        if address is not None and address == before:
            await self._end()
            self.begin(address, self._kept, pages)
            return
        in_the_way = before is not None and address is not None and BindAddress(
            False, *before
        ).clashes(BindAddress(False, *address))  # fmt: skip
        if in_the_way:
            await self._end(close=True)
        try:
            listener = await open_endpoint(address)
        except StartRefused:
            if in_the_way and self._pages is not None:
                self.begin(before, await open_endpoint(before), self._pages)
            raise
        await self._end(close=not in_the_way)
        self.begin(address, listener, pages)

    def begin(
        self, address: tuple[str, int] | None, listener: trio.SocketListener | None, pages: Pages
    ) -> None:
        """Serve at a listener that `open_endpoint` opened at that address, if it did."""
        self._address, self._kept, self._pages = address, listener, pages
        self._scope, self._ended = trio.CancelScope(), trio.Event()
        if listener is None:
            self._ended.set()
            return
        mine = trio.SocketListener(listener.socket.dup())
        self._nursery.start_soon(self._serve, mine, pages, self._scope, self._ended)

    async def _end(self, *, close: bool = False) -> None:
        """Stop serving; connections wait in the socket unless it is closed."""
        if self._pages is not None:
            self._scope.cancel()
            await self._ended.wait()
        if close and self._kept is not None:
            self._kept.socket.close()
            self._kept = None

    async def _serve(
        self, listener: trio.SocketListener, pages: Pages, scope: trio.CancelScope,
        ended: trio.Event,
    ) -> None:  # fmt: skip
        try:
            with scope:
                await pages(listener)
        finally:
            listener.socket.close()
            ended.set()
