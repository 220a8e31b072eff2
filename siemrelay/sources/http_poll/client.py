"""Requests to a polled API: credentials, bounds, and what an answer means for the next request."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from siemrelay.core.errors import SiemrelayError
from siemrelay.core.options import show_seconds
from siemrelay.formats.writing.text import sanitize_for_display
from siemrelay.net.http_client import (
    ConnectionGuard,
    HttpResponse,
    exchange,
    open_http_client,
)
from siemrelay.net.oauth import TokenAnswer, TokenRefused, TokenSource, TokenUnavailable
from siemrelay.net.tls_client import client_context
from siemrelay.net.tls_files import TlsFilesUnusable
from siemrelay.sources.http_poll.options import HttpPollOptions
from siemrelay.sources.http_poll.position import ApiAnswer
from siemrelay.wire.rate_limits import is_throttled, is_used_up, limit_pause_s
from siemrelay.wire.request_templates import Request

if TYPE_CHECKING:
    import httpx2

# A page of an API; what is larger is the wrong address, or needs a page size in its query.
_BODY_BYTES: Final = 32 * 1024 * 1024

# The longest pause that an API may ask for.
_LONGEST_ASKED_S: Final = 3600.0

# The pause after an answer that limits the rate and does not say for how long.
_THROTTLED_S: Final = 60.0

_TEXT_CHARACTERS: Final = 200

_ADVICE: Final = {
    401: "check `authorization`", 403: "check what the token in `authorization` may read",
    404: "check the path in `url`", 407: "the proxy wants a password (HTTPS_PROXY)",
}  # fmt: skip

# Answers to a link that the API does not know any more.
_EXPIRED: Final = frozenset({400, 404, 410, 422})


class PollFailed(SiemrelayError):
    """There is no usable answer: poll again after `after_s` seconds.

    `lasting`: only a person can fix it, so poll again seldom. `throttled`: the API limits the rate
    of all requests. `expired`: it may be about the link that the poll went on from. `gone`: there
    is nothing at that address, or nothing any more.
    """

    def __init__(
        self, reason: str, *, lasting: bool = False, after_s: float = 0.0,
        throttled: bool = False, expired: bool = False, gone: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(reason)
        self.gone = gone
        self.lasting, self.after_s = lasting, after_s
        self.throttled, self.expired = throttled, expired


class Page(msgspec.Struct, frozen=True):
    """One answer with 200. `pause_s`: the rate limit is used up, and renewed after that time."""

    answer: ApiAnswer
    pause_s: float = 0.0


class ApiClient:
    """Requests pages, one at a time."""

    def __init__(self, client: httpx2.AsyncClient, options: HttpPollOptions) -> None:
        self._client, self._options = client, options
        self._tokens = TokenSource(options.oauth, self._ask_token) if options.oauth else None

    async def fetch(self, request: Request) -> Page:
        """One page, at most 32 MiB. Raises PollFailed. If cancelled, the connection is closed.

        A refused OAuth token is renewed once.
        """
        answer = await self._authorized(request)
        if answer.status == 401 and self._tokens is not None and self._tokens.reject():
            answer = await self._authorized(request)
        if answer.status != 200:
            raise _refused(answer)
        headers, named = answer.headers, self._options.next_header
        link = headers.get(named.lower()) if named else _next_link(headers.get("link"))
        asked_s = limit_pause_s(headers, now_s=time.time()) if is_used_up(headers) else None
        return Page(ApiAnswer(answer.body, link), min(asked_s or 0.0, _LONGEST_ASKED_S))

    async def _authorized(self, request: Request) -> HttpResponse:
        import httpx2

        options = self._options
        headers = httpx2.Headers({name: str(value) for name, value in options.headers.items()})
        if options.authorization is not None:
            headers["Authorization"] = str(options.authorization)
        if self._tokens is not None:
            headers["Authorization"] = f"Bearer {await self._token(self._tokens)}"
        if request.body is not None:
            headers.setdefault("Content-Type", "application/json")
        return await self._exchange(request.url, request.body, headers)

    async def _token(self, tokens: TokenSource) -> str:
        try:
            return await tokens.token()
        except TokenRefused as error:
            raise PollFailed(str(error), lasting=True) from error
        except TokenUnavailable as error:
            after_s = min(error.after_s or 0.0, _LONGEST_ASKED_S)
            raise PollFailed(str(error), after_s=after_s) from error

    async def _ask_token(self, url: str, body: bytes, headers: Mapping[str, str]) -> TokenAnswer:
        # Without the API's headers: they may be credentials, and this is another server.
        answer = await self._exchange(url, body, headers)
        asked_s = limit_pause_s(answer.headers, now_s=time.time())
        return TokenAnswer(answer.status, answer.body, asked_s)

    async def _exchange(
        self, url: str, body: bytes | None, headers: Mapping[str, str]
    ) -> HttpResponse:
        import httpx2

        options = self._options
        method = "GET" if body is None else "POST"
        try:
            answer = await exchange(
                self._client, method, url, body, headers, guard=ConnectionGuard(),
                timeout_s=options.timeout, most_bytes=_BODY_BYTES,
                server_name=options.tls.server_name,
            )  # fmt: skip
        except trio.TooSlowError as error:
            limit = show_seconds(options.timeout)
            raise PollFailed(f"no answer within {limit} (`timeout`)") from error
        except httpx2.LocalProtocolError:
            # The library's message would show the header, and with it the credentials.
            raise PollFailed(
                "a request cannot be made of `authorization` and `headers`: no line breaks, "
                "control characters or spaces at an end", lasting=True,
            ) from None  # fmt: skip
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            reason = str(error).rstrip(".") or type(error).__name__
            raise PollFailed(f"{reason}; is the address right and the API up?") from error
        if answer.is_cut:
            raise PollFailed("an answer larger than 32 MiB; ask for smaller pages", lasting=True)
        return answer


def _next_link(header: str | None) -> str | None:
    import httpx2

    if header is None:
        return None
    links = httpx2.Response(200, headers={"Link": header}).links
    return links.get("next", {}).get("url")


def _refused(answer: HttpResponse) -> PollFailed:
    status, headers, body, _ = answer
    text = sanitize_for_display(" ".join(body.decode("utf-8", "replace").split()), _TEXT_CHARACTERS)
    reason = f"HTTP {status} {text}".rstrip()
    asked_s = limit_pause_s(headers, now_s=time.time())
    after_s = min(asked_s or 0.0, _LONGEST_ASKED_S)
    if is_throttled(status, headers, body):
        return PollFailed(
            reason, after_s=_THROTTLED_S if asked_s is None else after_s, throttled=True
        )
    advice = f"; {_ADVICE[status]}" if status in _ADVICE else ""
    lasting = 300 <= status < 500 and status != 408
    return PollFailed(
        reason + advice, lasting=lasting, after_s=after_s, expired=status in _EXPIRED,
        gone=status in (404, 410),
    )  # fmt: skip


@asynccontextmanager
async def open_client(options: HttpPollOptions) -> AsyncIterator[ApiClient]:
    """A client that follows no redirects and uses the environment's proxies."""
    try:
        context = await trio.to_thread.run_sync(client_context, options.tls)
    except TlsFilesUnusable as error:
        raise PollFailed(str(error), lasting=True) from error
    async with open_http_client(context, {"Accept": "application/json"}) as client:
        yield ApiClient(client, options)
