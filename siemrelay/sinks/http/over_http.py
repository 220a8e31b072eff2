"""What every sink over HTTP has: its client, its TLS files, and the certificate it met."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from siemrelay.net.tls_client import TlsContexts
from siemrelay.sinks.contract import Report
from siemrelay.sinks.http.client import Client, RequestOptions
from siemrelay.sinks.http.proxies import unusable_proxies


class OverHttp:
    """A sink that makes requests."""

    def __init__(self, requests: RequestOptions) -> None:
        self._requests = requests
        self._contexts = TlsContexts(requests.tls)

    @property
    def certificate_expires_at(self) -> float | None:
        """See `sinks.contract.Certified`."""
        return self._contexts.peer_expires_at

    @asynccontextmanager
    async def client(self, report: Report) -> AsyncIterator[Client]:
        """A client for one session; connections are made by requests, kept alive, closed here.

        Proxies come from the environment (HTTPS_PROXY, NO_PROXY …). TLS files are read again when
        they have changed, and the last good ones kept. Raises SinkHolds when they never were good,
        or when a proxy's variable cannot be used.
        """
        import httpx2  # slow to import, and only HTTP sinks need it

        options = self._requests
        for unusable in unusable_proxies():
            raise unusable
        context = await trio.to_thread.run_sync(self._contexts.current)
        # No compressed answers: a small one could unfold into any amount of memory.
        headers = {"User-Agent": "siemrelay", "Accept-Encoding": "identity"}
        headers |= {name: str(value) for name, value in options.headers.items()}
        if options.authorization is not None:
            headers[options.authorization_header] = str(options.authorization)
        elif options.basic is not None:
            pair = f"{options.basic.username}:{options.basic.password}".encode()
            headers["Authorization"] = "Basic " + b64encode(pair).decode()
        # Without a timeout of its own: each request has one for all of it.
        async with httpx2.AsyncClient(
            verify=context, headers=headers, timeout=None, follow_redirects=False
        ) as client:
            yield Client(client, options, self._contexts, report)
