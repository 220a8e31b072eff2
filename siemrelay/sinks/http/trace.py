"""The steps of a request, for `siemrelay test`: resolve, connect, tls, send.

They come from httpcore2's trace extension: `connection` events are about the receiver or its
proxy, `proxy.start_tls` about the receiver behind a tunnel.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import trio

from siemrelay.net.http_client import ConnectionGuard
from siemrelay.net.tls_client import TlsContexts, describe_tls, expires_at
from siemrelay.sinks.contract import Report, no_report
from siemrelay.sinks.http.proxies import proxy_for


class RequestTrace(ConnectionGuard):
    """Reports one request's steps; on a connection that is reused, only the last one."""

    def __init__(self, url: str, body_bytes: int, report: Report, contexts: TlsContexts) -> None:
        """`contexts` keeps the expiry of the receiver's certificate."""
        super().__init__()
        self._url, self._body_bytes = url, body_bytes
        self._report, self._contexts = report, contexts
        self._tunnel = False

    async def step(self, name: str, info: Mapping[str, Any]) -> None:
        """See `ConnectionGuard.step`."""
        await super().step(name, info)
        match name:
            case "connection.connect_tcp.started":
                await self._resolve(info["host"], info["port"])
            case "connection.connect_tcp.complete":
                with suppress(OSError):  # it was reset already: the request fails, and says so
                    host, port = info["return_value"].get_extra_info("server_addr")[:2]
                    self._report("connect", f"{host} port {port}{self._of_proxy()}")
            case "connection.start_tls.complete" if of_proxy := self._of_proxy():
                tls = info["return_value"].get_extra_info("ssl_object")
                self._report("tls", describe_tls(tls) + of_proxy)
            case "connection.start_tls.complete" | "proxy.start_tls.complete":
                tls = info["return_value"].get_extra_info("ssl_object")
                self._report("tls", describe_tls(tls))
                self._contexts.peer_expires_at = expires_at(tls)
            case "http11.send_request_headers.started":
                self._tunnel = info["request"].method == b"CONNECT"
            case "http11.send_request_body.complete" if not self._tunnel:
                self._report("send", f"{self._body_bytes} bytes to {self._url}")

    async def _resolve(self, host: str, port: int) -> None:
        # The connection resolves the name without an event: resolve it again, for the report.
        if self._report is no_report:
            return
        with suppress(OSError, UnicodeError):  # the connection fails in the same way
            found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            self._report("resolve", ", ".join(dict.fromkeys(str(one[4][0]) for one in found)))

    def _of_proxy(self) -> str:
        proxy = proxy_for(self._url)
        return f", the proxy of {proxy.variable}" if proxy else ""
