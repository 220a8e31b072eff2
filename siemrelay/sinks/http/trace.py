"""A request on its way, step by step: resolve, connect, tls, send.

Told by what httpcore2 traces: its `connection` reaches the receiver or its proxy, and
`proxy.start_tls` the receiver through a tunnel.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import trio

from siemrelay.net.tls_client import TlsContexts, describe_tls, expires_at
from siemrelay.sinks.contract import Report, no_report
from siemrelay.sinks.http.proxies import proxy_for


class RequestTrace:
    """One request's steps; of a connection that was there already only the last one."""

    def __init__(self, url: str, body_bytes: int, report: Report, contexts: TlsContexts) -> None:
        """`contexts` learns when the certificate that is met ends."""
        self._url, self._body_bytes = url, body_bytes
        self._report, self._contexts = report, contexts
        self._tunnel = False

    async def step(self, name: str, info: Mapping[str, Any]) -> None:
        """Take one of httpcore2's traces: a name and what the operation was given or gave."""
        match name:
            case "connection.connect_tcp.started":
                await self._resolve(info["host"], info["port"])
            case "connection.connect_tcp.complete":
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
        # The connection looks the name up by itself and tells nobody: asked again for who watches.
        if self._report is no_report:
            return
        with suppress(OSError, UnicodeError):  # the connection meets the same, and is judged
            found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            self._report("resolve", ", ".join(dict.fromkeys(str(one[4][0]) for one in found)))

    def _of_proxy(self) -> str:
        proxy = proxy_for(self._url)
        return f", the proxy of {proxy.variable}" if proxy else ""
