"""A JSON HTTP API asked again and again, from where it was asked last."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import msgspec
import structlog
import trio

from siemrelay.core.times import epoch_ms, rfc3339
from siemrelay.decoders.normalise import time_of
from siemrelay.sources.contract import Intake, Position, Records, SourceKind, joined
from siemrelay.sources.http_poll_options import HttpPollOptions, SinceOptions
from siemrelay.sources.polling import Ask, PollRefused, opened
from siemrelay.wire.polled import (
    NotAPage,
    fingerprint,
    items_of,
    next_page,
    value_at,
    with_parameter,
)

_KEY: Final = "poll"

# Items remembered from one poll to the next, so that those asked for twice are taken once.
_SEEN: Final = 20_000

# Pages in a row with nothing new: an API that goes on naming next ones is left here, until the next
# poll. Pages with something new have no such limit: with the newest items first, what is older than
# them would never be asked for again.
_IDLE_PAGES: Final = 100

# Between two polls the part shows that it is alive.
_PROGRESS_S: Final = 60.0

# Who is refused asks again after this or `every`, whichever is longer.
_REFUSED_PAUSE_S: Final = 60.0


class _Place:
    """How far the API was read; `value` is the position that is stored."""

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
        """What to ask now."""
        cursor, since, url = self._options.cursor, self._options.since, self._options.url
        if cursor is not None and self._cursor is not None:
            return with_parameter(url, cursor.parameter, self._cursor)
        if since is not None and self._since_ms is not None:
            return with_parameter(url, since.parameter, _SHOWN[since.format](self._since_ms))
        return url

    def take(self, items: list[bytes], body: bytes) -> list[bytes]:
        """The items that are new; the place moves past them."""
        known = set(self._seen)
        prints = list(map(fingerprint, items))
        new = [item for item, mark in zip(items, prints, strict=True) if mark not in known]
        cursor, since = self._options.cursor, self._options.since
        if cursor is not None:
            named = value_at(body, cursor.source)
            if named is not None and named != "":
                # What follows a cursor does not come again.
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
        """Move on after a poll's last page; whether there is something new to store.

        Not before: an API may give the newest items first, and the older ones be missed.
        """
        since, times = self._options.since, self._page_times
        self._page_times = []
        newest = max(times, default=0)
        if since is None or newest <= (self._since_ms or 0):
            return False
        # What has been taken stays known: it is asked for again, at the resolution of the time.
        self._since_ms = newest
        return True


_SHOWN: Final[dict[str, Callable[[int], str]]] = {
    "rfc3339": lambda ms: rfc3339(ms / 1000),
    "epoch": lambda ms: str(ms // 1000),
    "epoch_ms": str,
}


class HttpPollSource:
    """The items of an API's pages, each once, and on after a restart.

    The place is stored with the records. An API without `cursor` and `since` is asked for the same
    page again: what it had the last time is not taken twice, up to 20,000 items.
    """

    def __init__(self, name: str, options: HttpPollOptions) -> None:
        self.name, self._options = name, options

    async def run(self, intake: Intake, *, drain: bool) -> None:
        """Poll for ever; with `drain`, once. See `Source`."""
        log = structlog.get_logger().bind(source=self.name)
        options, trouble = self._options, ""
        place = _Place(options, dict(intake.positions().get(_KEY, {})))
        async with opened(options.authorization, options.headers, options.ca) as client:
            ask = Ask(client, options.timeout)
            while True:
                pause_s = options.every
                try:
                    async for page in self._pages(ask, place):
                        await self._offer(intake, page, place)
                    if place.finish():
                        await intake.offer(Records(b"", 0, (Position(_KEY, place.value),)))
                except (PollRefused, NotAPage) as error:
                    if str(error) != trouble:
                        log.error("poll failed", url=options.url, reason=str(error))
                    trouble = str(error)
                    pause_s = max(pause_s, _REFUSED_PAUSE_S)
                    if isinstance(error, PollRefused):
                        pause_s = error.after_s or (pause_s if error.lasting else options.every)
                else:
                    if trouble:
                        log.info("poll works again", url=options.url)
                    trouble = ""
                    if drain:
                        return
                await _sleep(pause_s, intake)

    async def _pages(self, ask: Ask, place: _Place) -> AsyncIterator[list[bytes]]:
        """What is new on each page of one poll; the place is past it."""
        asked: set[str] = set()
        idle, url = 0, place.url()
        while url not in asked and idle < _IDLE_PAGES:
            asked.add(url)
            answer = await ask.get(url)
            items = items_of(answer.body, self._options.items)
            new = place.take(items, answer.body)
            idle = 0 if new else idle + 1
            yield new
            told = answer.link
            if self._options.next is not None:
                told = value_at(answer.body, self._options.next)
            further = next_page(url, told if isinstance(told, str) else None)
            if further is None and items and self._options.cursor is not None:
                further = place.url()
            if further is None:
                return
            url = further

    async def _offer(self, intake: Intake, items: list[bytes], place: _Place) -> None:
        intake.progress()
        some = joined(items)
        if not some:
            return
        position = Position(_KEY, place.value)
        some[-1] = msgspec.structs.replace(some[-1], positions=(position,))
        for records in some:
            await intake.offer(records)


async def _sleep(pause_s: float, intake: Intake) -> None:
    until = trio.current_time() + pause_s
    while (left_s := until - trio.current_time()) > 0:
        await trio.sleep(min(left_s, _PROGRESS_S))
        intake.progress()


HTTP_POLL: Final = SourceKind(
    HttpPollOptions, HttpPollSource, "json", "a JSON HTTP API, asked again and again"
)
