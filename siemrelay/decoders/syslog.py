"""Syslog records → events: the header, and what is found inside the message."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from functools import partial
from typing import Any, Final

from siemrelay.catalogue import UNTYPED, Catalogue
from siemrelay.decoders.cef import cef_fields
from siemrelay.decoders.contract import DecoderKind
from siemrelay.decoders.finishing import Finisher, unparsed
from siemrelay.decoders.key_value import key_values
from siemrelay.decoders.leef import leef_fields
from siemrelay.decoders.mapping import Spellings
from siemrelay.decoders.reading import Finder, rest_of
from siemrelay.decoders.syslog_header import Header, as_attributes, header_of
from siemrelay.decoders.syslog_zone import SyslogOptions, zone_of
from siemrelay.event import DEFAULT_SEVERITY, AuditEvent, Batch, DecodedBatch, forgiving_json

Inner = Callable[[str], dict[str, Any] | None]
"""From a message's text to what it says, under the event's names or any known spelling."""

# RFC 5424, table 2: emergency, alert, critical, error, warning, notice, informational, debug.
_SEVERITIES: Final = (10, 9, 8, 7, 5, 3, 2, 0)

# Framing leaves them at the end, some senders put a mark at the beginning.
_AROUND: Final = "\0\r\n \t"
_MARK: Final = "\ufeff"

# One for all the records of which nobody reads anything.
_UNREAD: Final = AuditEvent(
    id="-", time="1970-01-01T00:00:00.000Z", type=UNTYPED, category="other",
    severity=DEFAULT_SEVERITY, outcome="unknown",
)  # fmt: skip


def json_fields(text: str) -> dict[str, Any] | None:
    """A JSON object, also behind `@cee:`."""
    text = text.removeprefix("@cee:").lstrip()
    if not text.startswith("{"):
        return None
    try:
        found = forgiving_json(text.encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def anything(text: str) -> dict[str, Any] | None:
    """CEF, LEEF, JSON or pairs, told apart by how they begin."""
    if text.startswith("CEF:"):
        return cef_fields(text)
    if text.startswith("LEEF:"):
        return leef_fields(text)
    if text.startswith(("{", "@cee:")):
        return json_fields(text)
    return key_values(text)


class SyslogDecoder:
    """Decodes the batches of one source; see `decoders.contract.Decoder`.

    The inner message decides; what it does not say the header does: the time, the severity by its
    PRI, the type by MSGID, else by the application's name.
    """

    def __init__(
        self, spellings: Spellings, wanted: frozenset[str], catalogue: Catalogue,
        inner: Inner = anything, timezone: str = "UTC",
    ) -> None:  # fmt: skip
        self._inner, self._attributes = inner, "attributes" in wanted
        self._unread = not wanted
        self._zone: tzinfo = zone_of(timezone)
        self._finder = Finder(spellings)
        self._finished = Finisher(catalogue, wanted).finished

    def decode(self, batch: Batch) -> DecodedBatch:
        """Exactly one event per record; never raises for what is in the records."""
        if self._unread:
            return DecodedBatch(batch, [_UNREAD] * batch.count)
        if batch.part is not None:
            return self._finished(batch, [unparsed(batch.payload[:-1], part=batch.part)], 1)
        received = datetime.fromtimestamp(batch.received_at, UTC)
        records, replaced = batch.records(), set[int]()
        events = []
        for i, record in enumerate(records):
            try:
                text = record.decode()
            except UnicodeDecodeError:
                text = record.decode("utf-8", "replace")
                replaced.add(i)
            events.append(self._event(text.strip(_AROUND), received))
        decoded = self._finished(batch, events, 0)
        decoded.replaced = frozenset(replaced)
        return decoded

    def _event(self, text: str, received: datetime) -> AuditEvent:
        header = header_of(text.removeprefix(_MARK), received, self._zone)
        said = header.text.removeprefix(_MARK)
        fields = self._own(header) or self._inner(said)
        event, used = self._finder.event(fields or {})
        if event.time is None:
            event.time = header.time
        if not event.type:
            event.type = header.msgid or header.app or ""
        if event.severity is None and header.pri is not None:
            event.severity = _SEVERITIES[header.pri % 8]
        if event.message is None:
            event.message = said
        if self._attributes:
            rest = rest_of(fields or {}, used)
            about = as_attributes(header)
            event.attributes = {**rest, "syslog": about} if about else rest
        return event

    def _own(self, header: Header) -> dict[str, Any] | None:
        """The fields of structured data that has an event: `format: syslog` writes it."""
        for name, params in (header.data or {}).items():
            if name.startswith("event@") and "type" in params:
                data = dict(header.data or {})
                del data[name]
                header.data = data or None
                message = {"message": header.text} if header.text else {}
                return {**params, **message}
        return None


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
