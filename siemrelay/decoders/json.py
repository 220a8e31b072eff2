"""JSON records → events: a learned shape for whole batches, each record by itself if not."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from siemrelay.catalogue import UNPARSED, Catalogue
from siemrelay.decoders.contract import DecoderKind, NoOptions
from siemrelay.decoders.finishing import ALWAYS_WANTED, Finisher, unparsed
from siemrelay.decoders.mapping import Spellings
from siemrelay.decoders.reading import Finder, rest_of
from siemrelay.decoders.shape import DEEPEST, REFUSALS, Shape, learn
from siemrelay.event import AuditEvent, Batch, DecodedBatch, forgiving_json

# Enough records to meet every common one; each costs about 10 µs, once.
_SAMPLE_RECORDS: Final = 64

# A batch in which more than one record in ten does not fit is looked at for a new shape.
_MISFITS_TO_LEARN_ANEW: Final = 0.1

# A source without one shape is asked about it less and less often, but not never.
_LONGEST_BACKOFF_BATCHES: Final = 1024

_RECORD: Final = msgspec.json.Decoder(dict[str, Any])


class JsonDecoder:
    """Decodes the batches of one source. Keeps what it learned of them; one task at a time."""

    def __init__(self, spellings: Spellings, wanted: frozenset[str], catalogue: Catalogue) -> None:
        """`wanted` are the fields that filters and formats read; others stay empty."""
        self._attributes = "attributes" in wanted
        # Attributes are what no field took, so with them every field is looked for.
        self._spellings = {
            field: paths
            for field, paths in spellings.items()
            if self._attributes or field in wanted | ALWAYS_WANTED
        }
        self._finder = Finder(self._spellings)
        self._finished = Finisher(catalogue, wanted).finished
        self._shape: Shape | None = None
        self._batches, self._learn_at = 0, 0
        self._backoff = 1

    def decode(self, batch: Batch) -> DecodedBatch:
        """Exactly one event per record; never raises for what is in the records."""
        self._batches += 1
        if batch.part is not None:
            return self._finished(batch, [unparsed(batch.payload[:-1], part=batch.part)], 1)
        payload, records = batch.payload, list[bytes]()
        if b"\r" in payload:
            # It ends the lines of some systems, and is space that no attributes may have in them.
            records = [record.rstrip(b"\r") for record in batch.records()]
            payload = b"".join([record + b"\n" for record in records])
        if self._shape is None and self._batches > self._learn_at:
            records = records or batch.records()
            self._learn(records)
        if self._shape is not None:
            try:
                rows = self._shape.rows(payload, batch.count)
            except REFUSALS:
                rows = None
            if rows is not None:
                events = self._shape.events(rows)
                return self._finished(batch, events, 0, tidy=self._shape.tidy)
        return self._one_by_one(batch, records or batch.records())

    def _learn(self, records: list[bytes]) -> None:
        sample = []
        for record in records[:: max(len(records) // _SAMPLE_RECORDS, 1)][:_SAMPLE_RECORDS]:
            try:
                sample.append(_RECORD.decode(record))
            except REFUSALS:
                continue
        self._shape = learn(sample, self._spellings, attributes=self._attributes)
        self._backoff = min(self._backoff * 2, _LONGEST_BACKOFF_BATCHES)
        self._learn_at = self._batches + self._backoff

    def _one_by_one(self, batch: Batch, records: list[bytes]) -> DecodedBatch:
        rows, others = [], {}
        for i, record in enumerate(records):
            row = self._row(record)
            if row is None:
                others[i] = self._looked_through(record)
            else:
                rows.append(row)
        shaped = iter(self._shape.events(rows) if self._shape is not None else ())
        events = [others.get(i) or next(shaped) for i in range(len(records))]
        refused = sum(event.type == UNPARSED for event in others.values())
        misfits = len(others) - refused
        if misfits > len(records) * _MISFITS_TO_LEARN_ANEW and self._batches > self._learn_at:
            self._learn(records)
        decoded = self._finished(batch, events, refused)
        decoded.replaced = frozenset(i for i in others if not _is_utf8(records[i]))
        return decoded

    def _row(self, record: bytes) -> Any:
        if self._shape is None:
            return None
        try:
            return self._shape.row(record)
        except REFUSALS:
            return None

    def _looked_through(self, record: bytes) -> AuditEvent:
        try:
            fields = forgiving_json(record)
        except (ValueError, RecursionError):
            return unparsed(record)
        if not isinstance(fields, dict):
            return unparsed(record)
        event, used = self._finder.event(fields)
        if self._attributes:
            rest = rest_of(fields, used)
            if _deep(rest, record):
                rest = {"record": record.decode("utf-8", "replace")}
            event.attributes = rest
        return event


def _is_utf8(record: bytes) -> bool:
    try:
        record.decode()
    except UnicodeDecodeError:
        return False
    return True


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


JSON: Final = DecoderKind(NoOptions, JsonDecoder, "one JSON object a record")
