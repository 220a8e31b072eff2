"""OpenTelemetry log records in OTLP's JSON encoding.

Rules: the OTLP specification, "JSON Protobuf Encoding" (64-bit numbers are texts, enumerations are
numbers), and opentelemetry-proto's logs.proto; severities as the log data model maps syslog's.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import msgspec

from siemrelay.core.event import AuditEvent, Selection, syslog_severity
from siemrelay.formats.contract import Format
from siemrelay.formats.envelopes.record_id import record_ids
from siemrelay.formats.writing.json_text import message_of

BodyKind = Literal["text", "structured"]

_SEVERITY_NUMBER: Final = {6: 9, 4: 13, 3: 17, 2: 18}
"""Syslog's informational, warning, error and critical as INFO, WARN, ERROR and ERROR2."""

_SEVERITY_TEXT: Final = {6: "low", 4: "medium", 3: "high", 2: "very high"}

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_NS_PER_MICROSECOND: Final = 1000

# The range of `intValue`; larger numbers become texts.
_INT64: Final = range(-(2**63), 2**63)

_decode: Final = msgspec.json.Decoder().decode


class LogRecords:
    """The inner format's messages as the bodies of log records.

    `structured` makes an OTLP map of a message that is a JSON object; every other message, and
    with `text` every message, is a text. `log.record.uid` is the record's id (see `record_ids`),
    by which a receiver may drop repeats (OpenTelemetry, semantic conventions: "other log records
    with the same id will be considered duplicates"); the event's own id is `audit.id`.
    """

    members: frozenset[str] | None = frozenset({"timeUnixNano", "body"})

    def __init__(self, inner: Format, body: BodyKind) -> None:
        self._inner, self._body = inner, body
        self.fields = inner.fields | _FIELDS

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        batch = selection.decoded.batch
        observed = str(int(batch.received_at * 1_000_000) * _NS_PER_MICROSECOND)
        source = _text("siemrelay.source", batch.source)
        messages = self._inner.encode(selection)
        return [
            message_of(self._record(message, event, sequence, uid, source, observed))
            for message, event, sequence, uid in zip(
                messages, selection.events, selection.sequences, record_ids(selection), strict=True
            )
        ]

    def _record(
        self, message: bytes, event: AuditEvent, sequence: int, uid: str, source: Any,
        observed: str,
    ) -> dict[str, Any]:  # fmt: skip
        level = syslog_severity(event.severity or 0)
        named = [(name, value) for name, value in zip(_NAMES, _values(event), strict=True) if value]
        return {
            "timeUnixNano": unix_nano(event.time),
            "observedTimeUnixNano": observed,
            "severityNumber": _SEVERITY_NUMBER[level],
            "severityText": _SEVERITY_TEXT[level],
            "eventName": event.type,
            "body": self._value(message),
            "attributes": [
                _text("log.record.uid", uid),
                *(_text(name, value) for name, value in named),
                {"key": "audit.severity", "value": any_value(event.severity)},
                source,
                {"key": "siemrelay.sequence", "value": any_value(sequence)},
            ],
        }

    def _value(self, message: bytes) -> dict[str, Any]:
        if self._body == "structured":
            try:
                found = _decode(message)
                if isinstance(found, dict):
                    return any_value(found)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass
        return {"stringValue": message.decode("utf-8", "replace")}


def log_records(inner: Format, options: Any) -> Format:
    """Any format's messages as log records."""
    return LogRecords(inner, options.body)


_NAMES: Final = (
    "audit.id", "audit.category", "audit.outcome", "user.name", "user.id", "source.address",
    "audit.target.type", "audit.target.name", "audit.target.id",
)  # fmt: skip
"""Attributes: OpenTelemetry's own names where its semantic conventions have one."""

_FIELDS: Final = frozenset({
    "id", "time", "type", "category", "severity", "outcome", "actor.name", "actor.id",
    "actor.address", "target.type", "target.name", "target.id",
})  # fmt: skip


def _values(event: AuditEvent) -> tuple[str | None, ...]:
    actor, target = event.actor, event.target
    return (
        event.id, event.category, event.outcome, actor.name, actor.id, actor.address,
        target.type, target.name, target.id,
    )  # fmt: skip


def _text(name: str, value: str) -> dict[str, Any]:
    return {"key": name, "value": {"stringValue": value}}


def unix_nano(time: str | None) -> str:
    """An RFC 3339 time as nanoseconds since the epoch; `0`, OTLP's unknown, for one before it."""
    if time is None:
        return "0"
    elapsed = (datetime.fromisoformat(time) - _EPOCH) // _MICROSECOND
    return str(max(elapsed, 0) * _NS_PER_MICROSECOND)


def any_value(value: Any) -> dict[str, Any]:
    """A JSON value as OTLP's AnyValue; null is one without a value.

    Raises RecursionError for one that is nested too deep.
    """
    if value is None:
        return {}
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)} if value in _INT64 else {"stringValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, dict):
        members = [{"key": key, "value": any_value(inner)} for key, inner in value.items()]
        return {"kvlistValue": {"values": members}}
    return {"arrayValue": {"values": [any_value(inner) for inner in value]}}
