"""The HTTP client of all HTTP sinks: connections, TLS, credentials, compression, typed errors.

A request without an answer raises SinkWaits or SinkHolds. An answer is returned whatever its
status: only the sink knows what it means.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

import trio

from siemrelay.core.errors import SinkHolds, SinkWaits
from siemrelay.net.http_client import exchange, open_http_client
from siemrelay.net.oauth import (
    TokenAnswer,
    TokenRefused,
    TokenSource,
    TokenUnavailable,
)
from siemrelay.net.tls_client import TlsContexts
from siemrelay.sinks.contract import Report, Settlement, no_report
from siemrelay.sinks.http.answer import Answer, timeout_error, transport_error
from siemrelay.sinks.http.compression import gzipped
from siemrelay.sinks.http.exchanges import ExchangeSession, open_exchanges
from siemrelay.sinks.http.options import RequestOptions
from siemrelay.sinks.http.proxies import proxy_advice, proxy_for, tunnel_error, unusable_proxies
from siemrelay.sinks.http.trace import RequestTrace

if TYPE_CHECKING:
    import httpx2

# The part of an answer that is kept: a bulk answer about thousands of items fits.
_ANSWER_BYTES: Final = 4 * 1024 * 1024

# Bodies above this are compressed in a thread, smaller ones at once: a hop costs about 80 µs.
_COMPRESS_IN_THREAD_BYTES: Final = 64 * 1024


class Client:
    """Makes requests; one per session, for any number of tasks at a time."""

    def __init__(
        self, client: httpx2.AsyncClient, headers: httpx2.Headers, options: RequestOptions,
        contexts: TlsContexts, report: Report,
    ) -> None:  # fmt: skip
        """`headers` go to the receiver, and not to the token endpoint: they may be credentials.

        `contexts` keeps the expiry of the receiver's certificate.
        """
        self._client, self._headers, self._options = client, headers, options
        self._contexts, self._report = contexts, report
        self._tokens = TokenSource(options.oauth, self._ask_token) if options.oauth else None

    async def post(
        self, url: str, body: bytes, content_type: str, *, compress: bool = True, **headers: str
    ) -> Answer:
        """POST a body, compressed if the options say so and `compress` does not forbid it.

        A `Content-Type` among the sink's own headers stands in place of `content_type`.

        Returns any answer, whatever its status. Raises SinkWaits or SinkHolds if there is none
        within `timeout`. After a 401 to an OAuth token the next request asks for a new one. If
        cancelled, the connection is closed and the receiver may or may not have the body.
        """
        sent = dict(self._headers)
        sent.setdefault("content-type", content_type)
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        if compress and self._options.compression == "gzip":
            sent["Content-Encoding"] = "gzip"
            large = len(body) > _COMPRESS_IN_THREAD_BYTES
            body = await trio.to_thread.run_sync(gzipped, body) if large else gzipped(body)
        if self._tokens is not None:
            sent["Authorization"] = f"Bearer {await self._token(self._tokens)}"
        answer = await self._exchange(url, body, sent)
        self._report("answer", str(answer))
        # Without a tunnel, an answer of the proxy looks like one of the receiver.
        tunnelled = not url.startswith("http:")
        if answer.status in (403, 407) and not tunnelled and (proxy := proxy_for(url)) is not None:
            advice = proxy_advice(answer.status, proxy)
            if answer.status == 407:
                raise SinkHolds(str(answer), advice=advice)
            raise SinkHolds(
                f"{answer}, by the receiver or by {proxy}",
                advice=f"check the credentials' rights, or {advice}",
            )
        if answer.status == 401 and self._tokens is not None and self._tokens.reject():
            raise SinkWaits(f"{answer}; asking for a new token", after_s=0)
        return answer

    async def _token(self, tokens: TokenSource) -> str:
        try:
            return await tokens.token()
        except TokenRefused as error:
            raise SinkHolds(error.reason, advice=error.advice) from error
        except TokenUnavailable as error:
            raise SinkWaits(str(error), after_s=error.after_s) from error

    async def _ask_token(self, url: str, body: bytes, headers: Mapping[str, str]) -> TokenAnswer:
        answer = await self._exchange(url, body, headers)
        self._report("token", f"HTTP {answer.status}")  # without the body: it is the token
        return TokenAnswer(answer.status, answer.body, answer.retry_after_s)

    async def _exchange(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        import httpx2

        tls, timeout_s = self._options.tls, self._options.timeout
        trace = RequestTrace(url, len(body), self._report, self._contexts)
        try:
            answer = await exchange(
                self._client, "POST", url, body, headers, guard=trace, timeout_s=timeout_s,
                most_bytes=_ANSWER_BYTES, server_name=tls.server_name,
            )  # fmt: skip
        except trio.TooSlowError as error:
            raise timeout_error(url, timeout_s) from error
        except httpx2.HTTPError as error:
            if isinstance(error, httpx2.ProxyError) and (proxy := proxy_for(url)) is not None:
                raise tunnel_error(str(error), proxy) from error
            shows = tls.certificate is not None
            raise transport_error(error, url, shows_certificate=shows) from error
        return Answer(answer.status, answer.headers, answer.body)


class RequestSink:
    """The base of every HTTP sink: a client per session, TLS files, the certificate's expiry."""

    connects_lazily: Literal[True] = True

    def __init__(self, requests: RequestOptions) -> None:
        self._requests = requests
        self._contexts = TlsContexts(requests.tls)

    @property
    def certificate_expires_at(self) -> float | None:
        """See `sinks.contract.Certified`."""
        return self._contexts.peer_expires_at

    @asynccontextmanager
    async def client(self, report: Report) -> AsyncIterator[Client]:
        """A client for one session. Requests open connections, which are kept alive until the end.

        Proxies come from the environment (HTTPS_PROXY, NO_PROXY …). TLS files are read again when
        they have changed; unusable new ones are ignored. Raises SinkHolds if the files were never
        usable, or if a proxy's variable is not.
        """
        import httpx2  # slow to import, and only HTTP sinks need it

        options = self._requests
        for unusable in unusable_proxies():
            raise unusable
        context = await trio.to_thread.run_sync(self._contexts.current)
        headers = httpx2.Headers()
        for name, value in options.headers.items():
            headers[name] = str(value)  # in place of one in another case
        if options.authorization is not None:
            headers[options.authorization_header] = str(options.authorization)
        elif options.basic is not None:
            pair = f"{options.basic.username}:{options.basic.password}".encode()
            headers["Authorization"] = "Basic " + b64encode(pair).decode()
        async with open_http_client(context) as client:
            yield Client(client, headers, options, self._contexts, report)


class ExchangeSink(RequestSink, ABC):
    """An HTTP sink that sends a batch by one `exchange`, `in_flight` of them at a time."""

    @abstractmethod
    async def exchange(self, client: Client, messages: Sequence[bytes]) -> Settlement:
        """Send one batch and return what the receiver refused of it.

        Raises SinkWaits, SinkHolds or BatchRefused. If cancelled, the batch counts as unsent.
        """

    @asynccontextmanager
    async def session(self, report: Report = no_report) -> AsyncIterator[ExchangeSession]:
        """See `sinks.contract.Sink`; the first request connects."""
        async with self.client(report) as client:
            exchange, in_flight = partial(self.exchange, client), self._requests.in_flight
            async with open_exchanges(exchange, in_flight=in_flight) as session:
                yield session
