"""A stand-in for Splunk's HTTP Event Collector, written from its documentation: no package has it.

Strict about what the real one refuses, with the same codes: "Format events for HTTP Event
Collector", "Troubleshoot HTTP Event Collector", "About HTTP Event Collector Indexer
Acknowledgment".
"""

from __future__ import annotations

import json
import re
import uuid
from collections import defaultdict
from collections.abc import Callable, Set
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from tests.support.receivers.http import Answer, HttpReceiver, Request

TOKEN: Final = "0a1b2c3d-4e5f-6789-abcd-ef0123456789"

_TEXTS: Final = {
    0: (200, "Success"),
    1: (403, "Token disabled"),
    2: (401, "Token is required"),
    3: (401, "Invalid authorization"),
    4: (403, "Invalid token"),
    5: (400, "No data"),
    6: (400, "Invalid data format"),
    7: (400, "Incorrect index"),
    8: (500, "Internal server error"),
    9: (503, "Server is busy"),
    10: (400, "Data channel is missing"),
    11: (400, "Invalid data channel"),
    12: (400, "Event field is required"),
    13: (400, "Event field cannot be blank"),
    14: (400, "ACK is disabled"),
    15: (400, "Error in handling indexed fields"),
    16: (400, "Query string authorization is not enabled"),
    23: (503, "Server is shutting down"),
    24: (200, "Success, queue is almost full"),
    25: (200, "Success, acknowledgement channel is almost full"),
    26: (429, "Queue is full"),
    27: (429, "Acknowledgement channel is full"),
}

_METADATA: Final = {"time", "host", "source", "sourcetype", "index", "event", "fields"}
_PLAIN_DECIMAL: Final = re.compile(r"-?\d+(\.\d+)?")
_SPACE: Final = re.compile(r"\s*")


def said(code: int, **more: Any) -> Answer:
    """The collector's answer with that code."""
    status, text = _TEXTS[code]
    return Answer(status, json.dumps({"text": text, "code": code, **more}))


class Refused(Exception):
    """A request that is refused, with the collector's answer."""

    def __init__(self, code: int, **more: Any) -> None:
        super().__init__(code)
        self.answer = said(code, **more)


class _Number(str):
    """A number as it was written."""


def _flat(value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return not any(isinstance(item, (dict, list, bool, type(None))) for item in items)


def read_event(message: bytes) -> Any:
    """One event as the collector reads it: a number keeps the form in which it is written."""
    return json.loads(message, parse_int=_Number, parse_float=_Number)


def check_event(event: Any, number: int, indexes: Set[str]) -> None:
    """Raise `Refused` for what a collector with these indexes does not take; `number` from 0."""
    where = {"invalid-event-number": number}
    if not isinstance(event, dict) or event.keys() - _METADATA:
        raise Refused(6, **where)
    if "event" not in event:
        raise Refused(12, **where)
    if event["event"] is None or (isinstance(event["event"], str) and not event["event"].strip()):
        raise Refused(13, **where)
    time, fields = event.get("time", _Number("0")), event.get("fields", {})
    if not isinstance(time, str) or not _PLAIN_DECIMAL.fullmatch(time):
        raise Refused(15, **where)
    if not isinstance(fields, dict) or not all(map(_flat, fields.values())):
        raise Refused(15, **where)
    if event.get("index", "main") not in indexes:
        # As met in the field: for this code the first event is number 1.
        raise Refused(7, **{"invalid-event-number": number + 1})


class SplunkReceiver(HttpReceiver):
    """A collector with one token; what it took is in `arrived`, as HEC events or raw lines.

    `refuse` gives the code that an event is refused with, or None. `indexed` says whether an
    acknowledgement id is to be told as `true` now. `keeps_earlier`: whether it keeps the events
    before a refused one, which is not documented. `counts_from_one`: as the real one does for some
    codes in the numbers of refused events.
    """

    def __init__(self, *, acknowledges: bool = False, **more: Any) -> None:
        super().__init__(self._collect, **more)
        self.acknowledges = acknowledges
        self.enabled = True
        self.indexes = {"main", "audit"}
        self.refuse: Callable[[dict[str, Any]], int | None] = lambda event: None
        self.indexed: Callable[[int], bool] = lambda ack_id: True
        self.keeps_earlier = self.counts_from_one = False
        self._next_ack_id: defaultdict[str, int] = defaultdict(int)
        self._unacknowledged: defaultdict[str, set[int]] = defaultdict(set)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def events(self) -> list[dict[str, Any]]:
        """The HEC events that it took, in order."""
        return [json.loads(message) for message in self.arrived.messages]

    @property
    def asked(self) -> list[list[int]]:
        """The acknowledgement ids of each question."""
        return [
            json.loads(r.content)["acks"] for r in self.requests if "/collector/ack" in r.target
        ]

    def restart(self) -> None:
        """As a restarted indexer: it counts acknowledgement ids from 0 and knows no older ones."""
        self._next_ack_id.clear()
        self._unacknowledged.clear()

    def taken(self, request: Request) -> list[bytes]:
        return []  # noted while it is read

    def _collect(self, request: Request) -> Answer:
        parts = urlsplit(request.target)
        try:
            self._authorize(request, parts.query)
            if parts.path == "/services/collector/ack":
                return self._tell(request, parts.query)
            if parts.path in ("/services/collector", "/services/collector/event"):
                channel = self._channel(request, wanted=self.acknowledges)
                self._take_events(request.content.decode())
            elif parts.path == "/services/collector/raw":
                channel = self._channel(request, wanted=True)
                self._take_lines(request.content, parse_qs(parts.query))
            else:
                said_nothing = "The requested URL was not found on this server."
                return Answer(404, json.dumps({"text": said_nothing, "code": 404}))
        except Refused as refused:
            return refused.answer
        if not self.acknowledges:
            return said(0)
        ack_id = self._next_ack_id[channel]
        self._next_ack_id[channel] += 1
        self._unacknowledged[channel].add(ack_id)
        return said(0, ackId=ack_id)

    def _authorize(self, request: Request, query: str) -> None:
        if "token" in parse_qs(query):
            raise Refused(16)
        authorization = request.headers.get("authorization")
        if authorization is None:
            raise Refused(2)
        scheme, _, token = authorization.partition(" ")
        if scheme != "Splunk" or not token:
            raise Refused(3)
        if token != TOKEN:
            raise Refused(4)
        if not self.enabled:
            raise Refused(1)

    def _channel(self, request: Request, *, wanted: bool) -> str:
        channel = request.headers.get("x-splunk-request-channel", "")
        if not channel and wanted:
            raise Refused(10)
        try:
            return str(uuid.UUID(channel)) if channel else ""
        except ValueError:
            raise Refused(11) from None

    def _take_events(self, body: str) -> None:
        decoder = json.JSONDecoder(parse_int=_Number, parse_float=_Number)
        events, at, end = list[dict[str, Any]](), 0, len(body.rstrip())
        if not end:
            raise Refused(5)
        try:
            while at < end:
                number = len(events)
                try:
                    event, at = decoder.raw_decode(body, _SPACE.match(body, at).end())  # type: ignore[union-attr]  # it always matches
                except ValueError:
                    raise Refused(6, **{"invalid-event-number": number}) from None
                check_event(event, number, self.indexes)
                code = self.refuse(event)
                if code is not None:
                    raise Refused(code, **{"invalid-event-number": number + self.counts_from_one})
                events.append(event)
        except Refused:
            if self.keeps_earlier:
                self._keep(events)
            raise
        self._keep(events)

    def _keep(self, events: list[dict[str, Any]]) -> None:
        self.arrived.add([json.dumps(event).encode() for event in events])

    def _take_lines(self, body: bytes, query: dict[str, list[str]]) -> None:
        if not body.strip():
            raise Refused(5)
        if query.get("index", ["main"])[0] not in self.indexes:
            raise Refused(7)
        self.arrived.add(body.removesuffix(b"\n").split(b"\n"))

    def _tell(self, request: Request, query: str) -> Answer:
        if not self.acknowledges:
            raise Refused(14)
        channel = parse_qs(query).get("channel", [""])[0]
        if not channel:
            raise Refused(10)
        if "content-encoding" in request.headers:
            raise Refused(6)
        waiting = self._unacknowledged[channel]
        acks = {}
        for ack_id in json.loads(request.content)["acks"]:
            acks[str(ack_id)] = ack_id in waiting and self.indexed(ack_id)
            if acks[str(ack_id)]:
                waiting.discard(ack_id)  # told once
        return Answer(200, json.dumps({"acks": acks}))
