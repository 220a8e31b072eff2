"""Requests over HTTP: bounded in time and in the size of the answer; no socket is left open."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import trio

if TYPE_CHECKING:
    import httpx2

# No compressed answers: a small one could expand to any amount of memory.
_SENT: Final = {"User-Agent": "siemrelay", "Accept-Encoding": "identity"}


class HttpResponse(NamedTuple):
    """An answer; names of headers in any case lead to their values. `is_cut`: see `exchange`."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_cut: bool


@asynccontextmanager
async def open_http_client(
    context: ssl.SSLContext, headers: Mapping[str, str] | None = None
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client that uses the environment's proxies and follows no redirects, for `exchange`.

    `headers` are sent with every request. Connections are kept alive until the end.
    """
    import httpx2  # slow to import, and only parts that speak HTTP need it

    async with httpx2.AsyncClient(
        verify=context, headers={**_SENT, **(headers or {})}, timeout=None, follow_redirects=False
    ) as client:
        yield client


async def exchange(
    client: httpx2.AsyncClient, method: str, url: str, body: bytes | None,
    headers: Mapping[str, str], *, guard: ConnectionGuard, timeout_s: float, most_bytes: int,
    server_name: str | None = None,
) -> HttpResponse:  # fmt: skip
    """Send a request and read its answer, whatever its status.

    Of a body over `most_bytes` the rest is read and dropped, within the time. `server_name`: the
    name to verify, if it is not that of the address. Raises trio.TooSlowError after `timeout_s`
    seconds, httpx2.HTTPError and httpx2.InvalidURL. If cancelled, the connection is closed.
    """
    extensions: dict[str, Any] = {"trace": guard.step}
    if server_name:
        extensions["sni_hostname"] = server_name
    try:
        with trio.fail_after(timeout_s):
            async with client.stream(
                method, url, content=body, headers=dict(headers), extensions=extensions
            ) as answer:
                found, is_cut = bytearray(), False
                async for part in answer.aiter_bytes():
                    is_cut = is_cut or len(found) + len(part) > most_bytes
                    found += part[: most_bytes - len(found)]
                return HttpResponse(answer.status_code, answer.headers, bytes(found), is_cut)
    finally:
        guard.close_unfinished()


class ConnectionGuard:
    """Closes a connection that a request has opened and not finished securing.

    The library leaves a socket whose TLS handshake was cancelled, or timed out, to the garbage
    collector. `exchange` passes `step` as the request's extension `trace`, and calls
    `close_unfinished` after it; checked by the conformance suites' tests that cancel at any await.
    """

    def __init__(self) -> None:
        self._connecting: trio.socket.SocketType | None = None

    async def step(self, name: str, info: Mapping[str, Any]) -> None:
        """Take one trace event of httpcore2: its name, and the operation's arguments or result."""
        if name == "connection.connect_tcp.complete":
            self._connecting = info["return_value"].get_extra_info("socket")
        elif name == "http11.send_request_headers.started":
            self._connecting = None  # from here on the client closes it

    def close_unfinished(self) -> None:
        """Close it; nothing happens after a request that was sent."""
        if self._connecting is not None:
            self._connecting.close()
