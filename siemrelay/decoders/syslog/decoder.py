"""Syslog records → events: the header, and what is found inside the message."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from operator import attrgetter
from typing import Any, Final

from siemrelay.core.event import DEFAULT_SEVERITY, AuditEvent, Batch, DecodedBatch
from siemrelay.core.event_types import UNTYPED, Catalogue
from siemrelay.decoders.cef import cef_fields
from siemrelay.decoders.contract import DecoderKind
from siemrelay.decoders.fields import Spellings
from siemrelay.decoders.finishing import Finisher, unparsed
from siemrelay.decoders.leef import leef_fields
from siemrelay.decoders.syslog.bodies import Bodies, Fields, Inner, anything
from siemrelay.decoders.syslog.columns import HeaderReader, Headers
from siemrelay.decoders.syslog.zone import SyslogOptions, zone_of

# Framing leaves them at the end, some senders put a mark at the beginning.
_AROUND: Final = "\0\r\n \t"
_MARK: Final = "\ufeff"

# One for all the records of which nobody reads anything.
_UNREAD: Final = AuditEvent(
    id="-", time="1970-01-01T00:00:00.000Z", type=UNTYPED, category="other",
    severity=DEFAULT_SEVERITY, outcome="unknown",
)  # fmt: skip


_time, _type = attrgetter("time"), attrgetter("type")
_severity, _message = attrgetter("severity"), attrgetter("message")


class SyslogDecoder:
    """Decodes the batches of one source; see `decoders.contract.Decoder`.

    The inner message decides; what it does not say the header does: the time, the severity by its
    PRI, the type by MSGID, else by the application's name.
    """

    def __init__(
        self, spellings: Spellings, wanted: frozenset[str], catalogue: Catalogue,
        inner: Inner = anything, timezone: str = "UTC",
    ) -> None:  # fmt: skip
        self._attributes, self._unread = "attributes" in wanted, not wanted
        self._headers = HeaderReader(zone_of(timezone)).headers
        self._bodies = Bodies(spellings, inner, attributes=self._attributes)
        self._finished = Finisher(catalogue, wanted).finished

    def decode(self, batch: Batch) -> DecodedBatch:
        """Exactly one event per record; never raises for what is in the records."""
        if self._unread:
            return DecodedBatch(batch, [_UNREAD] * batch.count)
        if batch.part is not None:
            return self._finished(batch, [unparsed(batch.payload[:-1], part=batch.part)], 1)
        messages, replaced = _texts(batch)
        headers = self._headers(
            [text.strip(_AROUND).removeprefix(_MARK) for text in messages],
            datetime.fromtimestamp(batch.received_at, UTC),
        )
        own = _own(headers)
        texts = [text.removeprefix(_MARK) for text in headers.texts]
        events, tidy = self._bodies.events(texts, own)
        self._complete(events, headers, texts)
        decoded = self._finished(batch, events, 0, tidy=tidy)
        decoded.replaced = replaced
        return decoded

    def _complete(self, events: list[AuditEvent], headers: Headers, texts: list[str]) -> None:
        """Adds what the bodies did not say."""
        if None in map(_time, events):
            for event, time in zip(events, headers.times, strict=True):
                if event.time is None:
                    event.time = time
        if not all(map(_type, events)):
            for event, origin in zip(events, headers.origins, strict=True):
                event.type = event.type or origin.type
        if None in map(_severity, events):
            for event, origin in zip(events, headers.origins, strict=True):
                if event.severity is None:
                    event.severity = origin.severity
        if None in map(_message, events):
            for event, text in zip(events, texts, strict=True):
                if event.message is None:
                    event.message = text
        if self._attributes:
            for event, origin, data in zip(events, headers.origins, headers.data, strict=True):
                # Never Raw: `Bodies` reads them as dicts.
                attributes: Any = event.attributes or {}
                about = {**origin.about, **data} if data else origin.about
                if about:
                    attributes["syslog"] = about
                event.attributes = attributes


def _texts(batch: Batch) -> tuple[list[str], frozenset[int]]:
    """The records, and which of them had bytes that are no UTF-8."""
    try:
        text = batch.payload[:-1].decode()
    except UnicodeDecodeError:
        records = batch.records()
    else:
        return [text] if batch.count == 1 else text.split("\n"), frozenset()
    texts = [record.decode("utf-8", "replace") for record in records]
    return texts, frozenset(
        i for i, text in enumerate(texts) if "\ufffd" in text and text.encode() != records[i]
    )


def _own(headers: Headers) -> dict[int, Fields]:
    """The fields of structured data that has an event: `format: syslog` writes it.

    By the places of the messages; the data is taken out of the headers.
    """
    own = {}
    for i, data in enumerate(headers.data):
        if not data:
            continue
        for name, params in data.items():
            if name.startswith("event@") and "type" in params:
                del data[name]
                own[i] = params if not headers.texts[i] else {**params, "message": headers.texts[i]}
                break
    return own


SYSLOG: Final = DecoderKind(
    SyslogOptions, SyslogDecoder, "syslog, with CEF, LEEF, JSON or key=value found inside"
)

CEF: Final = DecoderKind(
    SyslogOptions, partial(SyslogDecoder, inner=cef_fields),
    "CEF lines, also behind a syslog header",
)  # fmt: skip

LEEF: Final = DecoderKind(
    SyslogOptions, partial(SyslogDecoder, inner=leef_fields),
    "LEEF lines, also behind a syslog header",
)  # fmt: skip
