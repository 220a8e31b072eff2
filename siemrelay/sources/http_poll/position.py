"""The place up to which an API was read, and how its answers move it. No I/O.

Invariants (test_http_poll_position.py):
- the time to ask from advances at the end of a poll only: an API may give the newest items first,
  and a restart in between would then miss the older ones;
- an item within the window is taken once, whatever the order, the pages and the restarts.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import compress
from typing import Any, Final

import msgspec

from siemrelay.core.times import epoch_ms
from siemrelay.decoders.times import time_of
from siemrelay.sources.contract import Position
from siemrelay.sources.http_poll.options import HttpPollOptions
from siemrelay.sources.http_poll.requests import PollRequests, PollState
from siemrelay.sources.http_poll.seen import SeenItems
from siemrelay.wire.pagination import item_mark, next_page, page_items, value_at
from siemrelay.wire.request_templates import Request

MOST_SEEN: Final = 100_000
"""Items of one value of `for_each` that are remembered, so that none is stored twice."""

_KEY: Final = "poll"
_SEEN_KEY: Final = "seen:"

# A poll ends after so many pages in a row without anything, though the API names a next one. Pages
# with something have no such limit: where the newest items come first, the older ones would never
# be asked for again.
_IDLE_PAGES: Final = 100

# Requests of one poll that are remembered, so that pages in a circle end it.
_CIRCLE: Final = 1000

# An API may round times down to the second: items a little before the frontier may come again.
_ROUNDED_MS: Final = 2000


class ApiAnswer(msgspec.Struct, frozen=True):
    """An API's answer: its body, and the address of the next page in its header, if any."""

    body: bytes
    link: str | None = None


class PollPosition:
    """The position for one value of `for_each`, and the poll that is under way."""

    def __init__(
        self, options: HttpPollOptions, each: str | None,
        stored: Mapping[str, Mapping[str, Any]], now_ms: int,
    ) -> None:  # fmt: skip
        """`stored` are the source's positions, by key."""
        self.each, self._options = each, options
        # An option of every source, with which this model is joined.
        self._items: str | None = getattr(options, "items", None)
        self._key = _KEY if each is None else f"{_KEY}:{each}"
        found = stored.get(self._key)
        self._state = msgspec.convert(
            {k: v for k, v in (found or {}).items() if k in PollState.__struct_fields__}, PollState
        )
        start_ms = None
        if options.start_at != "beginning":
            ago_s = 0.0 if options.start_at == "now" else options.start_at
            start_ms = now_ms - int(ago_s * 1000)
        if found is None and options.since is not None:
            self._state.since_ms = start_ms
        self._requests = PollRequests(options, each, start_ms)
        self._seen = SeenItems(_chunks(stored, self._key), MOST_SEEN)
        # Positions of earlier versions have the marks inside.
        self._seen.add((found or {}).get("seen", ()), now_ms)
        self._asked = dict[Request, None]()
        self._idle, self._present_ms = 0, now_ms
        self._resumed, self._was_empty = False, False
        self._stored = dict(found or {})
        self.out_of_reach: tuple[int, int] | None = None
        """The time that the API can no longer be asked about, from and to, in milliseconds."""

    # -- requests ---------------------------------------------------------

    def begin(self, now_ms: int) -> Request:
        """The first request of a poll; after a restart the one that was due."""
        state, window = self._state, self._options.window
        self._asked.clear()
        self._idle, self._present_ms = 0, now_ms - int(window.lag * 1000)
        if window.reach is not None and state.since_ms is not None:
            earliest_ms = now_ms - int(window.reach * 1000)
            if state.since_ms < earliest_ms:
                self.out_of_reach = (state.since_ms, earliest_ms)
                state.since_ms, state.next = earliest_ms, None
        self._resumed = state.next is not None and self._requests.leads_on(state.next)
        if not self._resumed:
            state.next, state.newest_ms, state.until_ms = None, 0, self._present_ms
            if window.size is not None and state.since_ms is not None:
                last_ms = state.since_ms + int(window.size * 1000)
                state.until_ms = max(min(last_ms, self._present_ms), state.since_ms)
        return self._remembered(self._requests.request(state))

    @property
    def resumed(self) -> bool:
        """Whether the poll goes on by a link of an earlier one, which may have expired."""
        return self._resumed

    def forget_next(self) -> None:
        """The API does not know the link any more: ask from the time, or from the beginning."""
        self._state.next, self._resumed = None, False

    def _remembered(self, request: Request) -> Request:
        self._asked[request] = None
        if len(self._asked) > _CIRCLE:
            del self._asked[next(iter(self._asked))]
        return request

    # -- answers ----------------------------------------------------------

    def unseen(self, answer: ApiAnswer) -> list[bytes]:
        """The items of a page that are new, without moving past them. Raises NotAPage."""
        items = page_items(answer.body, self._items, may_lack=self._options.may_lack_items)
        marks = [item_mark(item, self._options.dedupe) for item in items]
        return list(compress(items, self._seen.new(marks)))

    def note(self, item: bytes) -> None:
        """Remember one of these items: what it leads to is stored."""
        self._note([item], [item_mark(item, self._options.dedupe)])

    def take(self, answer: ApiAnswer) -> list[bytes]:
        """The items of a page that are new; the position moves past them. Raises NotAPage."""
        options = self._options
        items = page_items(answer.body, self._items, may_lack=options.may_lack_items)
        marks = [item_mark(item, options.dedupe) for item in items]
        unseen = self._seen.new(marks)
        new = [item for item, is_new in zip(items, unseen, strict=True) if is_new]
        cursor = self._cursor_of(answer)
        if cursor is None:
            self._note(items, [m for m, is_new in zip(marks, unseen, strict=True) if is_new])
        else:
            # Items behind a cursor do not come again.
            self._state.cursor = cursor
            self._seen.clear()
        counted = items if options.since is not None else new
        self._idle = 0 if counted else self._idle + 1
        self._was_empty = not items
        return new

    def following(self, request: Request, answer: ApiAnswer) -> Request | None:
        """The request for the page behind one that was taken; None if it was the last of the poll.

        Raises NotAPage if the answer points to another server.
        """
        options, state = self._options, self._state
        if options.cursor is not None:
            link, is_last = None, self._was_empty
        else:
            link = self._link(request, answer)
            if link is None and options.keep_next and self._was_empty:
                # An empty page without a link: later items will be where it was asked for.
                link = state.next
            # The link of an empty page is the one to begin with later.
            is_last = link is None or (options.keep_next and self._was_empty)
        state.next = link
        if is_last:
            return None
        following = self._requests.request(state)
        if following in self._asked or self._idle >= _IDLE_PAGES:
            return None
        return self._remembered(following)

    def _link(self, request: Request, answer: ApiAnswer) -> str | None:
        options = self._options
        if options.page is not None:
            token = value_at(answer.body, options.page.source)
            return str(token) if token not in (None, "") else None
        named = answer.link
        if options.next is not None:
            named = value_at(answer.body, options.next)
        return next_page(request.url, named if isinstance(named, str) else None)

    def _cursor_of(self, answer: ApiAnswer) -> str | None:
        if self._options.cursor is None:
            return None
        named = value_at(answer.body, self._options.cursor.source)
        return str(named) if named not in (None, "") else None

    def _note(self, items: list[bytes], new_marks: list[str]) -> None:
        """Remember a page's items, and the time of the newest."""
        since, latest_ms = self._options.since, self._present_ms
        if since is not None and items:
            times = [time_of(value_at(item, since.field)) for item in items]
            found = [epoch_ms(at) for at in times if at is not None]
            if len(found) == len(items):
                latest_ms = max(found)
            # An item's clock may be wrong: nothing is asked from the future.
            newest_ms = min(max(found, default=0), max(self._present_ms, self._state.since_ms or 0))
            self._state.newest_ms = max(self._state.newest_ms, newest_ms)
        self._seen.add(new_marks, latest_ms)

    # -- the end of a poll --------------------------------------------------

    def finish(self) -> bool:
        """The last page of a poll was stored: advance the time; whether there is more to store."""
        state, options = self._state, self._options
        if not options.keep_next:
            state.next = None
        if options.since is not None:
            overlap_ms = int(options.window.overlap * 1000)
            reached_ms = state.newest_ms
            if self.is_behind:
                # Nothing more of this part comes but what the overlap is for.
                reached_ms = max(reached_ms, state.until_ms or 0)
            if reached_ms:
                state.since_ms = max(reached_ms - overlap_ms, state.since_ms or 0)
            self._seen.forget_before((state.since_ms or 0) - _ROUNDED_MS)
        self._seen.poll_ended()
        state.newest_ms, state.until_ms = 0, None
        return self._value() != self._stored or self._seen.has_changed

    @property
    def is_behind(self) -> bool:
        """Whether `window: {size}` ended the poll before the present."""
        until_ms = self._state.until_ms
        sized = self._options.window.size is not None
        return sized and until_ms is not None and until_ms < self._present_ms

    @property
    def has_forgotten(self) -> bool:
        """Whether an item that is asked for again may be stored twice, for want of room here."""
        return self._seen.forgotten_ms >= (self._state.since_ms or 0) > 0

    def positions(self) -> tuple[Position, ...]:
        """The changes since the last call, to be stored with the records of the last page."""
        changed = self._seen.changes()
        self._stored = self._value()
        return (
            Position(self._key, self._stored),
            *(
                Position(f"{_SEEN_KEY}{number}:{self._key}", each)
                for number, each in changed.items()
            ),
        )

    def _value(self) -> dict[str, Any]:
        return {k: v for k, v in msgspec.to_builtins(self._state).items() if v not in (None, 0)}


def _chunks(stored: Mapping[str, Mapping[str, Any]], key: str) -> dict[int, Mapping[str, Any]]:
    found = {}
    for name, value in stored.items():
        number, _, of = name.removeprefix(_SEEN_KEY).partition(":")
        if name.startswith(_SEEN_KEY) and of == key:
            found[int(number)] = value
    return found
