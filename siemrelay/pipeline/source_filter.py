"""A source's own `events:`, `where:`, `limit:` and `redact:`, applied before records are stored."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import compress
from operator import ne
from typing import Any, NamedTuple

import msgspec

from siemrelay.core.event import AuditEvent, Batch
from siemrelay.core.event_types import UNPARSED
from siemrelay.core.filters import EventFilter
from siemrelay.core.lines import records_of, separated
from siemrelay.decoders.contract import Decoder
from siemrelay.sources.contract import Records
from siemrelay.transforms.limiting import Admission, Limiter
from siemrelay.transforms.transform import EventTransform


class Filtered(NamedTuple):
    """The selected records with all positions, and in how many something was redacted.

    `limited`: how many are left out by `limit`, by type. Hand `counted` to `not_stored` if these
    records are not stored.
    """

    records: Records
    redacted: int = 0
    limited: Mapping[str, int] = {}
    counted: Mapping[Any, int] = {}


class SourceFilter:
    """Filters and redacts one source's records on their way into the buffer."""

    def __init__(
        self, source: str, decoder: Decoder, events: EventFilter, *, keep_unparsed: bool,
        transform: EventTransform | None = None, limiter: Limiter | None = None,
    ) -> None:  # fmt: skip
        """`keep_unparsed` keeps records that cannot be parsed, whatever the filters say."""
        self._limiter = limiter
        self._source, self._decoder, self._events = source, decoder, events
        self._transform, self._keep_unparsed = transform, keep_unparsed

    def explain(self, event: AuditEvent) -> tuple[bool, str]:
        """Whether the record of that event is stored, and why, in one sentence."""
        kept, why = self._events.explain(event)
        if kept and self._transform is not None:
            kept, why = self._transform.explain(event) or (kept, why)
        if not kept and self._keep_unparsed and event.type == UNPARSED:
            kept, why = True, "records that cannot be parsed are kept"
        if kept and self._limiter is not None:
            why = self._limiter.explain(event) or why
        return kept, why

    def admit(self, events: list[AuditEvent], keep: list[bool]) -> list[bool]:
        """Those of the events which `keep` names that `limit` lets through, too; they count."""
        if self._limiter is None:
            return keep
        return self._limiter.admit(events, keep, time.time()).kept

    def redacted(self, records: Sequence[bytes], events: Sequence[AuditEvent]) -> Sequence[bytes]:
        """The records without what the source redacts. `events`: what they were decoded to."""
        return records if self._transform is None else self._transform.redacted(records, events)

    def not_stored(self, counted: Mapping[Any, int]) -> None:
        """What `apply` selected is not stored and may come again: `limit` does not count it."""
        if self._limiter is not None:
            self._limiter.give_back(counted)

    def apply(self, records: Records) -> Filtered:
        """Select and redact records. They are `records` itself if nothing of them is changed."""
        if not records.count:
            return Filtered(records)
        now_s = time.time()
        batch = Batch(1, records.count, self._source, now_s, records.payload, records.part)
        decoded = self._decoder.decode(batch)
        events = decoded.events
        keep = self._events.select(events)
        if self._transform is not None:
            keep, _ = self._transform.select(decoded, keep)
        if keep is not None and self._keep_unparsed:
            keep = [
                kept or event.type == UNPARSED for kept, event in zip(keep, events, strict=True)
            ]
        limited, counted = dict[str, int](), Counter[Any]()
        # A part alone is no event: a record in parts is stored whole.
        if self._limiter is not None and records.part is None:
            admission = self._limiter.admit(events, keep, now_s)
            keep, counted = admission.kept, admission.counted
            limited = self._limited(admission)
        if keep is not None and not all(keep):
            events = list(compress(events, keep))
            if not events:
                nothing = msgspec.structs.replace(records, payload=b"", count=0, part=None)
                return Filtered(nothing, 0, limited)
            payload = separated(list(compress(decoded.records, keep)))
            records = msgspec.structs.replace(records, payload=payload, count=sum(keep))
        if self._transform is None or not self._transform.redacts:
            return Filtered(records, 0, limited, counted)
        received = records_of(records.payload, records.count)
        redacted = self.redacted(received, events)
        changed = sum(map(ne, received, redacted))
        if changed:
            payload = separated(redacted)
            records = msgspec.structs.replace(records, payload=payload)
        return Filtered(records, changed, limited, counted)

    def _limited(self, admission: Admission) -> dict[str, int]:
        """How many are left out by type, which may hold what is redacted."""
        counts: Counter[str] = Counter()
        for name, count in admission.left_out.items():
            counts[self._transform.redacted_type(name) if self._transform else name] += count
        return counts
