"""JSON records → events: a learned shape for whole batches, each record by itself where that fails."""

from __future__ import annotations

import hashlib
import json
from operator import attrgetter, itemgetter
from typing import Any, Final

import msgspec

from siemrelay.catalogue import UNPARSED, Catalogue
from siemrelay.decoders.mapping import Spellings, rest_of
from siemrelay.decoders.normalise import Kinds, time_of, times_are_plain
from siemrelay.decoders.shape import Shape, event_from, learn
from siemrelay.event import AuditEvent, Batch, DecodedBatch
from siemrelay.times import rfc3339

# Enough records to meet every common one; each costs about 10 µs, once.
_SAMPLE_RECORDS: Final = 64

# A batch in which more than one record in ten does not fit is looked at for a new shape.
_MISFITS_TO_LEARN_ANEW: Final = 0.1

_REFUSALS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_severity = itemgetter(2)
_kind = attrgetter("type", "category", "severity", "outcome")
_RECORD: Final = msgspec.json.Decoder(dict[str, Any])


class JsonDecoder:
    """Decodes the batches of one source. Keeps what it learned of them; one task at a time."""

    def __init__(self, spellings: Spellings, wanted: frozenset[str], catalogue: Catalogue) -> None:
        """`wanted` are the fields that filters and formats read; others stay empty."""
        self._spellings, self._kinds = spellings, Kinds(catalogue)
        self._wanted = wanted | {"id", "type"}
        if "severity" in wanted:
            self._wanted |= {"outcome"}  # a failure without a severity of its own counts for more
        self._attributes, self._times = "attributes" in wanted, "time" in wanted
        self._shape: Shape | None = None
        self._batches, self._learn_at = 0, 0
        self._backoff = 1

    def decode(self, batch: Batch) -> DecodedBatch:
        """Exactly one event per record; never raises for what is in the records."""
        self._batches += 1
        if batch.part is not None:
            piece = _unparsed(batch.payload[:-1], part=batch.part)
            return self._finished(batch, [piece], unparsed=1)
        if self._shape is None and self._batches > self._learn_at:
            self._learn(batch)
        if self._shape is not None:
            try:
                # Raw attributes go out as they came in, so their UTF-8 is proven here.
                if self._attributes and not batch.payload.isascii():
                    batch.payload.decode()
                events = self._shape.decode_lines(batch.payload)
                if len(events) == batch.count:
                    return self._finished(
                        batch, events, tidy=self._shape.tidy, controls=_controls(batch.payload)
                    )
            except _REFUSALS:
                pass
        return self._one_by_one(batch)

    def _learn(self, batch: Batch) -> None:
        records = batch.records()
        sample = []
        for record in records[:: max(len(records) // _SAMPLE_RECORDS, 1)][:_SAMPLE_RECORDS]:
            try:
                sample.append(_RECORD.decode(record))
            except _REFUSALS:
                continue
        self._shape = learn(sample, self._spellings, self._wanted) if sample else None
        # Sources without one shape are not asked about it at every batch.
        self._backoff = min(self._backoff * 2, 1024)
        self._learn_at = self._batches + self._backoff

    def _one_by_one(self, batch: Batch) -> DecodedBatch:
        events, misfits, unparsed = [], 0, 0
        shape = self._shape
        for record in batch.records():
            if shape is not None:
                try:
                    if not self._attributes or _is_utf8(record):
                        events.append(shape.decode(record))
                        continue
                except _REFUSALS:
                    pass
            misfits += 1
            event = self._looked_through(record)
            unparsed += event.type == UNPARSED
            events.append(event)
        if misfits - unparsed > batch.count * _MISFITS_TO_LEARN_ANEW:
            if self._batches > self._learn_at:
                self._learn(batch)
        return self._finished(batch, events, unparsed=unparsed)

    def _looked_through(self, record: bytes) -> AuditEvent:
        try:
            fields = _RECORD.decode(record)
        except _REFUSALS:
            try:
                # The standard library forgives what is common in the field: a BOM, NaN, integers
                # beyond 64 bits, half surrogate pairs; and bytes that are no UTF-8 are replaced.
                fields = json.loads(record.decode("utf-8", "replace").lstrip("\ufeff"))
            except (ValueError, RecursionError):
                return _unparsed(record)
            if not isinstance(fields, dict):
                return _unparsed(record)
        event, used = event_from(fields, self._spellings)
        if self._attributes:
            event.attributes = rest_of(fields, used)
        return event

    def _finished(
        self, batch: Batch, events: list[AuditEvent], *,
        unparsed: int = 0, tidy: bool = False, controls: bool = True,
    ) -> DecodedBatch:  # fmt: skip
        """Make the events what they promise to be. `tidy`: all but the type is known to be so."""
        decoded = DecodedBatch(batch, events, unparsed=unparsed, controls=controls)
        if not (tidy and self._kinds.all_canonical(set(map(_type, events)))):
            self._set_kinds(events)
        if self._times:
            self._set_times(batch, events)
        if None in map(_id, events):
            _set_ids(decoded)
        return decoded

    def _set_kinds(self, events: list[AuditEvent]) -> None:
        normal = self._kinds.normal
        said = list(map(_kind, events))
        changed = {kind: made for kind in set(said) if (made := normal(kind)) != kind}
        # 1 == 1.0 == True would hide in the set above; their types are looked at themselves.
        if changed or not set(map(type, map(_severity, said))) <= {int, type(None)}:
            for event, kind in zip(events, said, strict=True):
                event.type, event.category, event.severity, event.outcome = normal(kind)

    def _set_times(self, batch: Batch, events: list[AuditEvent]) -> None:
        times: list[Any] = list(map(_time, events))
        if set(map(type, times)) == {str} and times_are_plain(times):
            return
        received = rfc3339(batch.received_at)
        for event in events:
            event.time = time_of(event.time) or received


_id, _time, _type = attrgetter("id"), attrgetter("time"), attrgetter("type")


# Payloads with more escapes than this are not searched: formats then look at every character.
_ESCAPES_SEARCHED: Final = 4096


def _controls(payload: bytes) -> bool:
    """Whether JSON texts in it may hold control characters beyond tab, CR and LF.

    JSON has them as escapes only, but for DEL. One-byte searches are what C libraries do fastest.
    """
    if b"\x7f" in payload or payload.count(b"\\") > _ESCAPES_SEARCHED:
        return True
    at = payload.find(b"\\")
    while at >= 0:
        escape = payload[at + 1 : at + 4]
        if escape == b"u00" or escape[:1] in (b"b", b"f"):
            return True
        at = payload.find(b"\\", at + 2)
    return False


def _is_utf8(record: bytes) -> bool:
    try:
        record.decode()
    except UnicodeDecodeError:
        return False
    return True


def _unparsed(record: bytes, *, part: int | None = None) -> AuditEvent:
    text = record.decode("utf-8", "replace")
    return AuditEvent(
        type=UNPARSED, message=text, attributes=None if part is None else {"part": part}
    )


def _set_ids(decoded: DecodedBatch) -> None:
    """Ids for events without one: the same at every retry and replay, different for equal lines."""
    batch = decoded.batch
    for sequence, event, record in zip(
        range(batch.first_sequence, batch.next_sequence), decoded.events, decoded.records,
        strict=True,
    ):  # fmt: skip
        if event.id is None:
            digest = hashlib.blake2b(record, digest_size=16, salt=b"siemrelay-id")
            digest.update(f"\n{batch.source}\n{sequence}".encode())
            event.id = digest.hexdigest()
