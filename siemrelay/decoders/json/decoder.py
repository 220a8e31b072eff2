"""JSON records → events: whole batches by a learned shape, else record by record."""

from __future__ import annotations

from datetime import UTC, tzinfo
from typing import Any, Final

import msgspec

from siemrelay.core.event import AuditEvent, Batch, DecodedBatch
from siemrelay.core.event_types import UNPARSED, Catalogue
from siemrelay.core.forgiving_json import forgiving_json, may_hold_long_record
from siemrelay.core.lines import is_utf8
from siemrelay.decoders.contract import (
    MAX_TIME_AHEAD_S,
    MAX_TIME_PAST_S,
    DecoderKind,
    ZonedOptions,
)
from siemrelay.decoders.fields import Spellings, rest_of
from siemrelay.decoders.json.learned import DEEPEST, REFUSALS, Learner, decoded_lines
from siemrelay.decoders.json.lookup import FieldLookup
from siemrelay.decoders.normalise import ALWAYS_WANTED, Finisher, event_of_part, unparsed
from siemrelay.decoders.times import zone_of
from siemrelay.wire.framing.contract import Framing
from siemrelay.wire.framing.json_documents import JsonFraming


class JsonDecoder:
    """Decodes the batches of one source. Keeps what it learned of them; one task at a time."""

    def __init__(
        self, spellings: Spellings, wanted: frozenset[str], catalogue: Catalogue,
        max_time_past: float = MAX_TIME_PAST_S, max_time_ahead: float = MAX_TIME_AHEAD_S, *,
        learns: bool = True, zone: tzinfo = UTC,
    ) -> None:  # fmt: skip
        """`wanted` are the fields that filters and formats read; others stay empty.

        Times are as in `TimeBoundOptions`, in seconds. Without `learns` no shape is: the same
        events, slower. Times without a zone are in `zone`.
        """
        self._attributes = "attributes" in wanted
        # Attributes are what no field took, so with them every field is looked up.
        self._spellings = {
            field: paths
            for field, paths in spellings.items()
            if self._attributes or field in wanted | ALWAYS_WANTED
        }
        self._lookup = FieldLookup(self._spellings, catalogue.values)
        self._finished = Finisher(catalogue, wanted, max_time_past, max_time_ahead, zone).finished
        self._learner = Learner(
            self._spellings,
            msgspec.Raw if self._attributes else None,
            learns=learns and not (self._attributes and catalogue.values),
        )

    def decode(self, batch: Batch) -> DecodedBatch:
        """Exactly one event per record; never raises for what is in the records."""
        if batch.part is not None:
            event, unparsed_count = event_of_part(batch)
            return self._finished(batch, [event], unparsed_count)
        payload, split = batch.payload, batch.records
        if b"\r" in payload:
            # Some systems end lines with it; attributes that are passed on raw must not hold it.
            records = [record.rstrip(b"\r") for record in batch.records()]
            payload, split = b"".join([record + b"\n" for record in records]), lambda: records
        events = self._learner.together(payload, batch.count, split)
        if events is not None:
            return self._finished(batch, events, 0, tidy=self._learner.tidy)
        events = self._together(payload, batch.count)
        if events is not None:
            return self._finished(batch, events, 0)
        return self._one_by_one(batch, split())

    def _together(self, payload: bytes, count: int) -> list[AuditEvent] | None:
        """The events of a payload's records that have no shape, if all are whole objects."""
        if self._learner.shape is not None or may_hold_long_record(payload):
            return None
        brackets = payload.translate(None, _NO_BRACKET).split(b"\n")
        if max(map(len, brackets)) > DEEPEST:
            return None
        try:
            records = decoded_lines(_objects, payload, count)
        except REFUSALS:
            return None
        return records and self._lookup.events(records, attributes=self._attributes)

    def _one_by_one(self, batch: Batch, records: list[bytes]) -> DecodedBatch:
        shaped = self._learner.each(records)
        others = {i: self._looked_up(records[i]) for i, event in enumerate(shaped) if event is None}
        events = [others[i] if event is None else event for i, event in enumerate(shaped)]
        refused = sum(event.type == UNPARSED for event in others.values())
        self._learner.misfits(len(others) - refused, records)
        decoded = self._finished(batch, events, refused)
        decoded.replaced = frozenset(i for i in others if not is_utf8(records[i]))
        return decoded

    def _looked_up(self, record: bytes) -> AuditEvent:
        try:
            fields = forgiving_json(record)
        except (ValueError, RecursionError):
            return unparsed(record)
        if not isinstance(fields, dict):
            return unparsed(record)
        event, used = self._lookup.event(fields)
        if self._attributes:
            rest = rest_of(fields, used)
            if _deep(rest, record):
                rest = {"record": record.decode("utf-8", "replace")}
            event.attributes = rest
        return event


_objects: Final = msgspec.json.Decoder(dict[str, Any])
_NO_BRACKET: Final = bytes({*range(256)} - {*b"{[\n"})


def _deep(rest: dict[str, Any], record: bytes) -> bool:
    if record.count(b"{") + record.count(b"[") <= DEEPEST:
        return False
    level: list[Any] = [rest]
    for _ in range(DEEPEST):
        level = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


def _why(record: bytes) -> str:
    try:
        msgspec.json.decode(record)
    except (msgspec.DecodeError, RecursionError) as error:
        return f"not JSON: {str(error).removeprefix('JSON is malformed: ')}"
    return "not a JSON object" if not record.lstrip().startswith(b"{") else "too many values"


def _built(
    spellings: Spellings, wanted: frozenset[str], catalogue: Catalogue,
    max_time_past: float = MAX_TIME_PAST_S, max_time_ahead: float = MAX_TIME_AHEAD_S,
    timezone: str = "UTC",
) -> JsonDecoder:  # fmt: skip
    zone = zone_of(timezone)
    return JsonDecoder(spellings, wanted, catalogue, max_time_past, max_time_ahead, zone=zone)


def _framing(options: ZonedOptions, max_record_bytes: int) -> Framing:
    return JsonFraming(max_record_bytes)


JSON: Final = DecoderKind(
    ZonedOptions, _built,
    "one JSON object a record; in a file one a line, or documents over several lines, one after "
    "the other or in an array",
    _framing, _why,
)  # fmt: skip
