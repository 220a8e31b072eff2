"""The HTTP poll source: asks a JSON API for new items, from where the last poll ended."""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec
import structlog
import trio

from siemrelay.core.times import rfc3339
from siemrelay.net.tasks import report_alive
from siemrelay.sources.contract import Intake, Records, SourceKind, joined
from siemrelay.sources.http_poll.client import ApiClient, PollFailed, open_client
from siemrelay.sources.http_poll.options import HttpPollOptions
from siemrelay.sources.http_poll.position import MOST_SEEN, PollPosition
from siemrelay.wire.pagination import NotAPage, next_page, page_items, value_at
from siemrelay.wire.request_templates import Request

# An API that limits the rate answers and refuses in turn: that is one line in the log, until it has
# answered everything for so long.
_THROTTLED_S: Final = 600.0

# The pause after a refusal, if `every` is not longer.
_REFUSED_PAUSE_S: Final = 60.0


class HttpPollSource:
    """The items of an API's pages, each once; a restart continues where the last poll ended.

    The position is stored in the same transaction as the records. Without `cursor` and `since` each
    poll asks for the same page: items that were on it before, up to 100,000, are not stored again.
    """

    def __init__(self, name: str, options: HttpPollOptions) -> None:
        self.name, self._options = name, options
        self._blocked_why = ""

    async def run(self, intake: Intake, *, drain: bool) -> None:
        """Poll for ever; with `drain`, once. See `Source`."""
        stored, now_ms = intake.positions(), _now_ms()
        log = structlog.get_logger().bind(source=self.name)
        values: list[str | None] = [*self._options.for_each] or [None]
        polls = [
            _Poll(self._options, PollPosition(self._options, each, stored, now_ms), intake, log)
            for each in values
        ]
        self._blocked_why = ""
        intake.blocked("")
        async with open_client(self._options) as client:
            while True:
                for poll in polls:
                    if trio.current_time() < poll.due_s:
                        continue
                    throttled_s = await poll.run(client)
                    if throttled_s:
                        # The limit is about all requests of this client.
                        for other in polls:
                            other.wait(throttled_s)
                blocked = next((poll.blocked_why for poll in polls if poll.blocked_why), "")
                if blocked != self._blocked_why:
                    self._blocked_why = blocked
                    intake.blocked(blocked)
                if drain and all(poll.has_worked for poll in polls):
                    return
                with trio.move_on_at(min(poll.due_s for poll in polls)):
                    await report_alive(intake.progress)


class _Poll:
    """The polls for one value of `for_each`."""

    def __init__(
        self, options: HttpPollOptions, position: PollPosition, intake: Intake, log: Any
    ) -> None:
        self._options, self._position, self._intake = options, position, intake
        self._log = log if position.each is None else log.bind(each=position.each)
        self._trouble, self._throttled_until_s = "", 0.0
        self.blocked_why = ""
        """The error that only a person can end, while it keeps the API's items away."""
        self._warned_of_room = False
        self.due_s = trio.current_time()
        """When to poll next, on trio's clock."""
        self.has_worked = False

    def wait(self, pause_s: float) -> None:
        """Poll no earlier than so long from now."""
        self.due_s = max(self.due_s, trio.current_time() + pause_s)

    async def run(self, client: ApiClient) -> float:
        """Poll once, up to the present, and set `due_s`; for how long the API is to be left alone.

        What fails is logged, once for each reason.
        """
        pause_s, throttled_s = self._options.every, 0.0
        try:
            while await self._to_the_last_page(client):
                pass
        except NotAPage as error:
            pause_s = max(pause_s, _REFUSED_PAUSE_S)
            self._log_trouble(str(error), lasting=True)
        except PollFailed as error:
            if error.throttled:
                throttled_s = error.after_s
                self._log_throttled(str(error), throttled_s)
            elif error.expired and self._position.resumed:
                self._position.forget_next()
                pause_s = 0.0
                self._log.warning(
                    "poll begins again", url=self._options.url, reason=str(error),
                    advice="the API no longer knows where the last poll ended: what it still has "
                    "of the time since then is asked for again, and nothing stored twice",
                )  # fmt: skip
            else:
                self._log_trouble(str(error), lasting=error.lasting)
                if error.lasting:
                    pause_s = max(pause_s, _REFUSED_PAUSE_S)
                pause_s = error.after_s or pause_s
        else:
            if self._trouble:
                self._log.info("poll works again", url=self._options.url)
            self._trouble, self.blocked_why, self.has_worked = "", "", True
        self.due_s = trio.current_time() + pause_s
        return throttled_s

    async def _to_the_last_page(self, client: ApiClient) -> bool:
        """Poll once; whether there is more to ask for at once."""
        position = self._position
        request = position.begin(_now_ms())
        self._warn_of_gap()
        while True:
            page = await client.fetch(request)
            self._intake.progress()
            if self._options.follow is not None:
                await self._follow(client, request, position.unseen(page.answer))
            await self._offer(position.take(page.answer))
            following = position.following(request, page.answer)
            if following is None:
                break
            await self._let_renew(page.pause_s)
            request = following
        is_behind = position.is_behind
        if position.finish():
            await self._intake.offer(Records(b"", 0, position.positions()))
        if position.has_forgotten and not self._warned_of_room:
            self._warned_of_room = True
            self._log.warning(
                "poll window too large", url=self._options.url,
                reason=f"more than {MOST_SEEN:,} items came within the overlap, and no more are "
                "remembered: some may be stored twice",
                advice="lower `window: {overlap}`, or split the request by `for_each`",
            )  # fmt: skip
        await self._let_renew(page.pause_s)
        return is_behind

    async def _follow(self, client: ApiClient, request: Request, items: list[bytes]) -> None:
        """Store what items lead to, each with its item's mark. Raises PollFailed, NotAPage."""
        path = self._options.follow or ""
        for item in items:
            named = value_at(item, path)
            address = next_page(request.url, named if isinstance(named, str) else None)
            if address is None:
                raise NotAPage(f"an item has no address at `follow: {path}`")
            try:
                page = await client.fetch(Request(address))
                found = page_items(page.answer.body, None)
            except PollFailed as error:
                if not error.gone:
                    raise
                found = []
                self._log.warning(
                    "polled content is gone", url=address, reason=str(error),
                    advice="what it held is lost: the API keeps content for some days only",
                )  # fmt: skip
            else:
                await self._let_renew(page.pause_s)
            self._intake.progress()
            self._position.note(item)
            await self._offer(found)

    def _warn_of_gap(self) -> None:
        gap, self._position.out_of_reach = self._position.out_of_reach, None
        if gap is not None:
            self._log.warning(
                "poll gap", url=self._options.url, since=rfc3339(gap[0] / 1000),
                until=rfc3339(gap[1] / 1000),
                advice="the API cannot be asked about that time any more (`window: {reach}`): what "
                "happened then and was not polled before is lost",
            )  # fmt: skip

    async def _offer(self, items: list[bytes]) -> None:
        records = joined(items)
        if not records:
            return
        # With the last of them: what is cut between them comes again.
        records[-1] = msgspec.structs.replace(records[-1], positions=self._position.positions())
        for each in records:
            await self._intake.offer(each)

    async def _let_renew(self, pause_s: float) -> None:
        """Wait until the API takes requests again, if that one used up its limit."""
        if pause_s:
            self._log_throttled("the API's rate limit is used up", pause_s)
            with trio.move_on_after(pause_s):
                await report_alive(self._intake.progress)

    def _log_trouble(self, reason: str, *, lasting: bool) -> None:
        if lasting:
            of = f"for {self._position.each} " if self._position.each else ""
            self.blocked_why = f"cannot poll {of}{self._options.url}: {reason}"
        if reason != self._trouble:
            self._log.error("poll failed", url=self._options.url, reason=reason)
        self._trouble = reason

    def _log_throttled(self, reason: str, pause_s: float) -> None:
        now_s = trio.current_time()
        if now_s >= self._throttled_until_s:
            self._log.warning(
                "poll throttled", url=self._options.url, reason=reason,
                again_after_s=round(pause_s), advice="if this goes on: raise `every`, or the limit",
            )  # fmt: skip
        self._throttled_until_s = now_s + pause_s + _THROTTLED_S


def _now_ms() -> int:
    return int(time.time() * 1000)


HTTP_POLL: Final = SourceKind(
    HttpPollOptions,
    HttpPollSource,
    "json",
    "a JSON HTTP API, polled for new items",
    reads_tls_once=True,
    splits_items=True,
)
