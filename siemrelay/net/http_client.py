"""Closes the sockets that httpx2 leaves open when a request is cancelled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio


class ConnectionGuard:
    """Closes a connection that a request has opened and not finished securing.

    The library leaves a socket whose TLS handshake was cancelled, or timed out, to the garbage
    collector. Pass `step` as the request's extension `trace`, and call `close_unfinished` after it;
    checked by the conformance suites' tests that cancel at any await.
    """

    def __init__(self) -> None:
        self._connecting: trio.socket.SocketType | None = None

    async def step(self, name: str, info: Mapping[str, Any]) -> None:
        """Take one trace event of httpcore2."""
        if name == "connection.connect_tcp.complete":
            self._connecting = info["return_value"].get_extra_info("socket")
        elif name == "http11.send_request_headers.started":
            self._connecting = None  # from here on the client closes it

    def close_unfinished(self) -> None:
        """Close it; nothing happens after a request that was sent."""
        if self._connecting is not None:
            self._connecting.close()
