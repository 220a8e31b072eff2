"""The HTTP poll source: asks a JSON API for new items, from where the last poll ended."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
import structlog
import trio
from pydantic import Field, model_validator

from siemrelay.core.errors import SiemrelayError
from siemrelay.core.options import Duration, HeaderName, HeaderValue, Options, show_seconds
from siemrelay.core.times import epoch_ms, rfc3339
from siemrelay.decoders.times import time_of
from siemrelay.formats.writing.text import sanitize_for_display
from siemrelay.net.http_client import ConnectionGuard
from siemrelay.net.pem import TrustedAuthorities
from siemrelay.net.tasks import report_alive
from siemrelay.net.url import Url
from siemrelay.sources.contract import Intake, Position, Records, SourceKind, joined
from siemrelay.wire.pagination import (
    NotAPage,
    item_fingerprint,
    next_page,
    page_items,
    value_at,
    with_parameter,
)

if TYPE_CHECKING:
    import httpx2

_KEY: Final = "poll"

# Fingerprints kept from one poll to the next, so that an item that comes again is not stored again.
_SEEN: Final = 20_000

# A poll ends after so many pages in a row with nothing new, though the API names a next one. Pages
# with something new have no such limit: where the newest items come first, the older ones would
# never be asked for again.
_IDLE_PAGES: Final = 100

# The pause after a refusal, if `every` is not longer.
_REFUSED_PAUSE_S: Final = 60.0


class CursorOptions(Options):
    """Paging by a cursor that each answer names."""

    parameter: str = Field(min_length=1, description="the query parameter that takes the cursor")
    source: str = Field(
        min_length=1, alias="from", description="dotted path of the next cursor in the answer"
    )


class SinceOptions(Options):
    """Polling from the time of the newest item on."""

    parameter: str = Field(min_length=1, description="the query parameter that takes the time")
    field: str = Field(min_length=1, description="dotted path of the time in an item")
    format: Literal["rfc3339", "epoch", "epoch_ms"] = Field(
        "rfc3339", description="how the parameter is written"
    )


class HttpPollOptions(Options):
    """Options of `type: http_poll`."""

    url: Url = Field(description="the address that is requested by GET")
    every: Duration = Field(30.0, gt=0, description="the pause between two polls")
    authorization: HeaderValue | None = Field(
        None, description="the Authorization header, word for word"
    )
    headers: dict[HeaderName, HeaderValue] = Field(
        default_factory=dict, description="further request headers; their values are not shown"
    )
    ca: TrustedAuthorities = None
    timeout: Duration = Field(30.0, gt=0, description="for one request, answer included")
    next: str | None = Field(
        None, min_length=1, description="dotted path of the next page's address in an answer; a "
        "`Link` header with rel=next is followed without it",
    )  # fmt: skip
    cursor: CursorOptions | None = Field(None, description="continue by the API's own cursor")
    since: SinceOptions | None = Field(None, description="continue from the newest item's time")
    start_at: Literal["beginning", "now"] = Field(
        "beginning", description="with `since`: what the very first poll asks for"
    )

    @model_validator(mode="after")
    def _one_way(self) -> HttpPollOptions:
        if self.cursor is not None and self.since is not None:
            raise ValueError("give one of `cursor` and `since`, not both")
        return self


class _PollPosition:
    """The place up to which the API was read. `value` is stored with the records before it."""

    def __init__(self, options: HttpPollOptions, stored: dict[str, Any]) -> None:
        self._options = options
        self._cursor: str | None = stored.get("cursor")
        self._since_ms: int | None = stored.get("since_ms")
        self._seen: list[str] = list(stored.get("seen", ()))
        self._page_times: list[int] = []
        if not stored and options.since and options.start_at == "now":
            self._since_ms = int(time.time() * 1000)

    @property
    def value(self) -> dict[str, Any]:
        return {"cursor": self._cursor, "since_ms": self._since_ms, "seen": self._seen}

    def url(self) -> str:
        """The address of the next poll."""
        cursor, since, url = self._options.cursor, self._options.since, self._options.url
        if cursor is not None and self._cursor is not None:
            return with_parameter(url, cursor.parameter, self._cursor)
        if since is not None and self._since_ms is not None:
            return with_parameter(url, since.parameter, _WRITTEN[since.format](self._since_ms))
        return url

    def take(self, items: list[bytes], body: bytes) -> list[bytes]:
        """The items of a page that are new; the position moves past them."""
        known = set(self._seen)
        prints = list(map(item_fingerprint, items))
        new = [item for item, mark in zip(items, prints, strict=True) if mark not in known]
        cursor, since = self._options.cursor, self._options.since
        if cursor is not None:
            named = value_at(body, cursor.source)
            if named is not None and named != "":
                # Items behind a cursor do not come again.
                self._cursor, self._seen = str(named), []
            else:
                self._seen = [*self._seen, *prints][-_SEEN:]
        elif since is None:
            self._seen = [*(mark for mark in self._seen if mark not in prints), *prints][-_SEEN:]
        else:
            self._note(since, items, prints)
        return new

    def _note(self, since: SinceOptions, items: list[bytes], prints: list[str]) -> None:
        times = [time_of(value_at(item, since.field)) for item in items]
        self._page_times += [epoch_ms(at) for at in times if at is not None]
        self._seen = list(dict.fromkeys([*self._seen, *prints]))[-_SEEN:]

    def finish(self) -> bool:
        """Advance the time after a poll's last page; whether the position has changed.

        Not page by page: an API may give the newest items first, and a crash would then skip the
        older ones.
        """
        since, times = self._options.since, self._page_times
        self._page_times = []
        newest = max(times, default=0)
        if since is None or newest <= (self._since_ms or 0):
            return False
        # The fingerprints stay: items of that very time come again with the next poll.
        self._since_ms = newest
        return True


_WRITTEN: Final[dict[str, Callable[[int], str]]] = {
    "rfc3339": lambda ms: rfc3339(ms / 1000),
    "epoch": lambda ms: str(ms // 1000),
    "epoch_ms": str,
}


class HttpPollSource:
    """The items of an API's pages, each once; a restart continues where the last poll ended.

    The position is stored in the same transaction as the records. Without `cursor` and `since` each
    poll asks for the same page: items that were on it before, up to 20,000, are not stored again.
    """

    def __init__(self, name: str, options: HttpPollOptions) -> None:
        self.name, self._options = name, options
        # An option of every source, with which this model is joined.
        self._items: str | None = getattr(options, "items", None)

    async def run(self, intake: Intake, *, drain: bool) -> None:
        """Poll for ever; with `drain`, once. See `Source`."""
        log = structlog.get_logger().bind(source=self.name)
        options, trouble = self._options, ""
        position = _PollPosition(options, dict(intake.positions().get(_KEY, {})))
        async with open_client(options.authorization, options.headers, options.ca) as client:
            pages = PageClient(client, options.timeout)
            while True:
                pause_s = options.every
                try:
                    async with aclosing(self._pages(pages, position)) as found:
                        async for page in found:
                            await self._offer(intake, page, position)
                    if position.finish():
                        await intake.offer(Records(b"", 0, (Position(_KEY, position.value),)))
                except (PollFailed, NotAPage) as error:
                    if str(error) != trouble:
                        log.error("poll failed", url=options.url, reason=str(error))
                    trouble = str(error)
                    pause_s = max(pause_s, _REFUSED_PAUSE_S)
                    if isinstance(error, PollFailed):
                        pause_s = error.after_s or (pause_s if error.lasting else options.every)
                else:
                    if trouble:
                        log.info("poll works again", url=options.url)
                    trouble = ""
                    if drain:
                        return
                with trio.move_on_after(pause_s):
                    await report_alive(intake.progress)

    async def _pages(
        self, client: PageClient, position: _PollPosition
    ) -> AsyncGenerator[list[bytes], None]:
        """The new items of each page of one poll; the position is past them."""
        asked: set[str] = set()
        idle, url = 0, position.url()
        while url not in asked and idle < _IDLE_PAGES:
            asked.add(url)
            answer = await client.get(url)
            items = page_items(answer.body, self._items)
            new = position.take(items, answer.body)
            idle = 0 if new else idle + 1
            yield new
            named = answer.link
            if self._options.next is not None:
                named = value_at(answer.body, self._options.next)
            further = next_page(url, named if isinstance(named, str) else None)
            if further is None and items and self._options.cursor is not None:
                further = position.url()
            if further is None:
                return
            url = further

    async def _offer(self, intake: Intake, items: list[bytes], position: _PollPosition) -> None:
        intake.progress()
        some = joined(items)
        if not some:
            return
        moved = Position(_KEY, position.value)
        some[-1] = msgspec.structs.replace(some[-1], positions=(moved,))
        for records in some:
            await intake.offer(records)


# -- requests ---------------------------------------------------------------

# A page of an API; what is larger is the wrong address, or needs a page size in its query.
_BODY_BYTES: Final = 32 * 1024 * 1024

# The longest pause that an API may ask for by Retry-After.
_LONGEST_ASKED_S: Final = 3600.0

_TEXT_CHARACTERS: Final = 200

_ADVICE: Final = {
    401: "check `authorization`", 403: "check what the token in `authorization` may read",
    404: "check the path in `url`", 407: "the proxy wants a password (HTTPS_PROXY)",
}  # fmt: skip


class PollFailed(SiemrelayError):
    """There is no usable answer: poll again after `after_s` seconds.

    `lasting`: only a person can fix it, so poll again seldom.
    """

    def __init__(self, reason: str, *, lasting: bool = False, after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.lasting, self.after_s = lasting, after_s


class Page(msgspec.Struct, frozen=True):
    """One answer; `link` is the next page in its Link header (RFC 8288)."""

    body: bytes
    link: str | None


class PageClient:
    """Requests pages by GET, one at a time."""

    def __init__(self, client: httpx2.AsyncClient, timeout_s: float) -> None:
        self._client, self._timeout_s = client, timeout_s

    async def get(self, url: str) -> Page:
        """One page, at most 32 MiB. Raises PollFailed. If cancelled, the connection is closed."""
        import httpx2

        guard = ConnectionGuard()
        try:
            with trio.fail_after(self._timeout_s):
                async with self._client.stream(
                    "GET", url, extensions={"trace": guard.step}
                ) as answer:
                    body = bytearray()
                    async for part in answer.aiter_bytes():
                        body += part
                        if len(body) > _BODY_BYTES:
                            raise PollFailed(
                                "an answer larger than 32 MiB; ask for smaller pages in `url`",
                                lasting=True,
                            )
                    if answer.status_code != 200:
                        raise _refused(answer.status_code, bytes(body), answer.headers)
                    link = answer.links.get("next", {}).get("url")
                    return Page(bytes(body), link)
        except trio.TooSlowError as error:
            limit = show_seconds(self._timeout_s)
            raise PollFailed(f"no answer within {limit} (`timeout`)") from error
        except httpx2.LocalProtocolError:
            # The library's message would show the header, and with it the credentials.
            raise PollFailed(
                "a request cannot be made of `authorization` and `headers`: no line breaks, "
                "control characters or spaces at an end", lasting=True,
            ) from None  # fmt: skip
        except httpx2.HTTPError as error:
            reason = str(error).rstrip(".") or type(error).__name__
            raise PollFailed(f"{reason}; is the address right and the API up?") from error
        finally:
            guard.close_unfinished()


def _refused(status: int, body: bytes, headers: Mapping[str, str]) -> PollFailed:
    text = sanitize_for_display(" ".join(body.decode("utf-8", "replace").split()), _TEXT_CHARACTERS)
    advice = f"; {_ADVICE[status]}" if status in _ADVICE else ""
    asked = headers.get("retry-after", "")
    after_s = min(float(asked), _LONGEST_ASKED_S) if asked.isascii() and asked.isdigit() else 0.0
    lasting = 300 <= status < 500 and status not in (408, 429)
    return PollFailed(f"HTTP {status} {text}".rstrip() + advice, lasting=lasting, after_s=after_s)


@asynccontextmanager
async def open_client(
    authorization: str | None, headers: Mapping[str, str], ca: Path | None
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client with these headers. It follows no redirects and uses the environment's proxies."""
    import httpx2  # slow to import, and only this source needs it

    try:
        context = await trio.to_thread.run_sync(lambda: ssl.create_default_context(cafile=ca))
    except (OSError, ssl.SSLError) as error:
        raise PollFailed(f"cannot use `ca: {ca}`: {error}", lasting=True) from error
    sent = {"User-Agent": "siemrelay", "Accept": "application/json", "Accept-Encoding": "identity"}
    sent |= {name: str(value) for name, value in headers.items()}
    if authorization is not None:
        sent["Authorization"] = str(authorization)
    async with httpx2.AsyncClient(verify=context, headers=sent, follow_redirects=False) as client:
        yield client


HTTP_POLL: Final = SourceKind(
    HttpPollOptions,
    HttpPollSource,
    "json",
    "a JSON HTTP API, polled for new items",
    reads_tls_once=True,
    splits_items=True,
)
