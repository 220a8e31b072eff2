"""The Splunk HEC source: an HTTP Event Collector for senders that are made for Splunk's."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator
from functools import partial
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qsl

import msgspec
import trio
from pydantic import Field, model_validator

from siemrelay.core.options import Secret
from siemrelay.net.body_memory import HeldBody
from siemrelay.net.http_application import Head, HttpAnswer
from siemrelay.products.product import BUILT_IN
from siemrelay.sources.contract import Intake, Records, SourceKind, joined
from siemrelay.sources.http.auth import Authorization, basic_password
from siemrelay.sources.http.bodies import BodyReader, content_coding
from siemrelay.sources.http.options import STORE_S, HttpListenOptions, serve
from siemrelay.sources.splunk_hec.acks import SenderAcknowledgements
from siemrelay.wire.hec_server import REPLIES, HecReader, HecRefused, read_ack_ids, reply
from siemrelay.wire.http_bodies import CODINGS, BodyRefused, BodyTooLarge, TooManyRecords

_COLLECTOR: Final = "/services/collector"
_WHAT: Final = {
    "": "event", "/event": "event", "/event/1.0": "event", "/raw": "raw", "/raw/1.0": "raw",
    "/ack": "ack", "/ack/1.0": "ack", "/health": "health", "/health/1.0": "health",
}  # fmt: skip
_GUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

# Records of one body go into rows of the buffer of so many; see ROW_BYTES of http_bodies.
_ROW_RECORDS: Final = 1000

_COUNTED: Final = {2: "authorization", 3: "authorization", 4: "authorization",
                   16: "authorization", 8: "error", 9: "no_room"}  # fmt: skip
"""Code → the reason under which refusals are counted; `malformed` for all others."""

# Splunk has codes for these refusals of the server itself, and for no others.
_CODES: Final = {503: 9, 500: 8}


class HecOptions(HttpListenOptions):
    """Options of `type: splunk-hec`."""

    tokens: Annotated[list[Secret], Field(min_length=1)] = Field(
        description="the tokens that senders may use, without the word Splunk"
    )
    use_ack: Literal["auto", "required", "disabled"] = Field(
        "auto",
        description="`auto`: a request with a channel gets an acknowledgement id; `required`: one "
        "without is refused; `disabled`: no ids",
    )
    acknowledge: Literal["buffered", "delivered"] = Field(
        "buffered",
        description="when an id is acknowledged: its records are on disk here (as they are when "
        "the request is answered), or every enabled sink is past them",
    )

    @model_validator(mode="after")
    def _no_path(self) -> HecOptions:
        if self.address.path != "/":
            raise ValueError("`listen` has no path here: senders know Splunk's own")
        return self


class HecSource:
    """Receives the events that are sent to the addresses of Splunk's own collector."""

    def __init__(self, name: str, options: HecOptions) -> None:
        self.name, self._options = name, options

    async def run(self, intake: Intake, *, drain: bool) -> None:
        """Serve for ever; with `drain`, return when nothing was sent for a second.

        If cancelled, connections are closed; requests without an answer may or may not be stored.
        """
        options = self._options
        async with trio.open_nursery() as nursery:
            delivered = options.acknowledge == "delivered"
            acks = SenderAcknowledgements(intake, delivered=delivered)
            if delivered:
                nursery.start_soon(acks.run)
            collector = _Collector(options, intake, acks)
            await serve(self.name, options, collector, intake, open_to_all=False, drain=drain)
            nursery.cancel_scope.cancel()


class _Collector:
    """See `http_application.Application`."""

    def __init__(self, options: HecOptions, intake: Intake, acks: SenderAcknowledgements) -> None:
        self._tokens = Authorization(f"Splunk {token}" for token in options.tokens)
        self._intake, self._acks = intake, acks
        self._use_ack, self._most_records = options.use_ack, options.max_records
        self._bodies = BodyReader(options.max_body)
        # `decoder` is an option of every source, with which this model is joined.
        as_json = getattr(options, "decoder", "json") == "json"
        self._reader = HecReader(BUILT_IN["generic"].spellings["time"], as_json=as_json)

    def admit(self, head: Head) -> HttpAnswer | bool:
        what = _what(head)
        if what is None:
            return self.fault(404, "The requested URL was not found on this server.")
        if what == "health":
            full = self._intake.full or self._acks.full
            return HttpAnswer(REPLIES[18][0], reply(18)) if full else HttpAnswer(200, reply(17))
        if head.method != "POST":
            return self.fault(405, "POST events here")
        if (code := self._unauthorized(head)) is not None:
            return _refusal(code)
        if content_coding(head) not in CODINGS:
            return self.fault(415, "Content-Encoding can be gzip, deflate or identity")
        if what == "ack" and self._use_ack == "disabled":
            return _refusal(14)
        needs_channel = what == "ack" or self._use_ack == "required"
        if (refusal := _channel_fault(head, needs_channel)) is not None:
            return refusal
        if what != "ack" and (self._intake.full or self._acks.full):
            return _refusal(9)
        return True

    def _unauthorized(self, head: Head) -> int | None:
        given = head.fields.get("authorization", "").strip()
        if not given:
            return 16 if "token" in _query(head) else 2
        token = _token(given)
        if token is None:
            return 3
        if not token.strip():
            return 2
        return 4 if self._tokens.find(f"Splunk {token}") is None else None

    def _ack_scope(self, head: Head) -> str:
        """The scope of acknowledgement ids: one token and certificate on one channel."""
        token = _token(head.fields.get("authorization", "").strip())
        certificate = hashlib.sha256(head.certificate).hexdigest() if head.certificate else ""
        return f"{self._tokens.find(f'Splunk {token}')} {certificate} {_channel(head)}"

    async def answer(self, head: Head, body: HeldBody) -> HttpAnswer:
        try:
            _, found = await self._bodies.read(head, body, partial(self._parsed, head))
        except (BodyTooLarge, TooManyRecords) as error:
            return self.fault(413, str(error))
        except BodyRefused:
            return _refusal(6)
        except HecRefused as fault:
            return _refusal(fault.code, fault.number)
        if _what(head) == "ack":
            acknowledged = self._acks.take(self._ack_scope(head), found)
            return HttpAnswer(200, msgspec.json.encode({"acks": acknowledged}))
        return await self._stored(head, found)

    def _parsed(self, head: Head, data: bytes) -> Generator[None, None, list[Any]]:
        what = _what(head)
        if what == "raw":
            return self._reader.lines(data, _query(head), self._most_records)
        if what == "ack":
            return read_ack_ids(data)
        return self._reader.events(data, self._most_records)

    async def _stored(self, head: Head, records: list[bytes]) -> HttpAnswer:
        rows: list[Records] = []
        for start in range(0, len(records), _ROW_RECORDS):
            rows += joined(records[start : start + _ROW_RECORDS])
        stored = None
        with trio.move_on_after(STORE_S):
            stored = await self._intake.store(*rows)
        if stored is None:
            return _refusal(9)
        channel = _channel(head)
        if not channel or self._use_ack == "disabled":
            return HttpAnswer(200, reply(0))
        return HttpAnswer(200, reply(0, ackId=self._acks.issue(self._ack_scope(head), stored)))

    def fault(self, status: int, reason: str) -> HttpAnswer:
        """A refusal that Splunk has no code for, or its nearest one."""
        if status in _CODES:
            return _refusal(_CODES[status])
        return HttpAnswer(
            status, msgspec.json.encode({"text": reason, "code": status}), refused="request"
        )


def _refusal(code: int, number: int | None = None) -> HttpAnswer:
    more: dict[str, Any] = {} if number is None else {"invalid-event-number": number}
    return HttpAnswer(
        REPLIES[code][0], reply(code, **more), refused=_COUNTED.get(code, "malformed")
    )


def _token(authorization: str) -> str | None:
    """The token in `Splunk TOKEN`, or the password of `Basic`; None with another scheme."""
    scheme, _, token = authorization.partition(" ")
    if scheme.casefold() == "basic":
        return basic_password(authorization) or ""
    return token if scheme.casefold() == "splunk" else None


def _channel_fault(head: Head, required: bool) -> HttpAnswer | None:
    channel = _channel(head)
    if not channel:
        return _refusal(10) if required else None
    return None if _GUID.fullmatch(channel) else _refusal(11)


def _what(head: Head) -> str | None:
    path = head.path.rstrip("/")
    return _WHAT.get(path.removeprefix(_COLLECTOR)) if path.startswith(_COLLECTOR) else None


def _channel(head: Head) -> str:
    given = head.fields.get("x-splunk-request-channel", "").strip()
    return (given or _query(head).get("channel", "")).casefold()


def _query(head: Head) -> dict[str, str]:
    return dict(parse_qsl(head.query))


HEC: Final = SourceKind(
    HecOptions, HecSource, "json", "Splunk's HTTP Event Collector, for senders that are made for it"
)
