"""The requests of a poll: written of the options and of the place up to which the API was read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from siemrelay.core.times import rfc3339
from siemrelay.sources.http_poll.options import HttpPollOptions
from siemrelay.wire.pagination import same_origin
from siemrelay.wire.request_templates import (
    Request,
    filled_body,
    filled_parameters,
    filled_url,
    with_member,
    with_parameter,
)

_FORMATS: Final[dict[str, Callable[[int], str]]] = {
    "rfc3339": lambda ms: rfc3339(ms / 1000),
    "rfc3339_s": lambda ms: rfc3339(ms // 1000).removesuffix(".000Z") + "Z",
    "epoch": lambda ms: str(ms // 1000),
    "epoch_ms": str,
}


class PollState(msgspec.Struct):
    """The stored state; `next` leads on from the last page that was stored."""

    cursor: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    newest_ms: int = 0
    next: str | None = None


class PollRequests:
    """Writes the requests for one value of `for_each`. Pure."""

    def __init__(self, options: HttpPollOptions, each: str | None, start_ms: int | None) -> None:
        """`start_ms`: the time from which a cursor begins, if it does not at the beginning."""
        self._options, self._each, self._start_ms = options, each, start_ms

    def leads_on(self, link: str) -> bool:
        """Whether that link is one of this API's; a token of a page always is."""
        return self._options.page is not None or same_origin(self._filled_url(), link)

    def _filled_url(self) -> str:
        return filled_url(self._options.url, {"each": self._each})

    def request(self, state: PollState) -> Request:
        """The request that goes on from there."""
        options = self._options
        if state.next is not None and options.page is None:
            return Request(state.next, None if options.post is None else self._body({}))
        written = _FORMATS[options.since.format if options.since else "rfc3339"]
        values = {
            "each": self._each,
            "since": None if state.since_ms is None else written(state.since_ms),
            "until": None if state.until_ms is None else written(state.until_ms),
        }
        more = dict[str, str]()
        if options.since is not None and options.since.parameter and values["since"] is not None:
            more[options.since.parameter] = values["since"]
        if options.cursor is not None and state.cursor is not None:
            more[options.cursor.parameter] = state.cursor
        if options.page is not None and state.next is not None:
            more[options.page.parameter] = state.next
        first = dict[str, Any]()
        if options.cursor is not None and state.cursor is None:
            start = None
            if self._start_ms is not None:
                start = _FORMATS[options.cursor.format](self._start_ms)
            first = filled_body(options.cursor.first, {"start": start})
        query = filled_parameters(options.parameters, values)
        body = None
        if options.post is None:
            query |= more | {name: str(value) for name, value in first.items()}
        else:
            body = self._body(values, more, first)
        url = self._filled_url()
        for name, value in query.items():
            url = with_parameter(url, name, value)
        return Request(url, body)

    def _body(
        self, values: Mapping[str, str | None], more: Mapping[str, str] = {},
        first: Mapping[str, Any] = {},
    ) -> bytes:  # fmt: skip
        body = {**filled_body(self._options.post, values), **first}
        for path, value in more.items():
            body = with_member(body, path, value)
        return msgspec.json.encode(body)
