"""A source's own `events:`, `where:` and `redact:`, applied before records are stored."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import compress
from operator import ne

import msgspec

from siemrelay.core.event import AuditEvent, Batch
from siemrelay.core.event_types import UNPARSED
from siemrelay.core.filters import EventFilter
from siemrelay.core.lines import records_of, separated
from siemrelay.decoders.contract import Decoder
from siemrelay.sources.contract import Records
from siemrelay.transforms.transform import EventTransform


class SourceFilter:
    """Filters and redacts one source's records on their way into the buffer."""

    def __init__(
        self, source: str, decoder: Decoder, events: EventFilter, *, keep_unparsed: bool,
        transform: EventTransform | None = None,
    ) -> None:  # fmt: skip
        """`keep_unparsed` keeps records that cannot be parsed, whatever the filters say."""
        self._source, self._decoder, self._events = source, decoder, events
        self._transform, self._keep_unparsed = transform, keep_unparsed

    def explain(self, event: AuditEvent) -> tuple[bool, str]:
        """Whether the record of that event is stored, and why, in one sentence."""
        kept, why = self._events.explain(event)
        if kept and self._transform is not None:
            kept, why = self._transform.explain(event) or (kept, why)
        if not kept and self._keep_unparsed and event.type == UNPARSED:
            return True, "records that cannot be parsed are kept"
        return kept, why

    def redacted(self, records: Sequence[bytes], events: Sequence[AuditEvent]) -> Sequence[bytes]:
        """The records without what the source redacts. `events`: what they were decoded to."""
        return records if self._transform is None else self._transform.redacted(records, events)

    def apply(self, records: Records) -> tuple[Records, int]:
        """The selected records with all positions, and in how many something was redacted.

        It is `records` itself if all are selected and nothing was.
        """
        if not records.count:
            return records, 0
        batch = Batch(
            1, records.count, self._source, time.time(), records.payload, records.part
        )  # fmt: skip
        decoded = self._decoder.decode(batch)
        events = decoded.events
        keep = self._events.select(events)
        if self._transform is not None:
            keep, _ = self._transform.select(decoded, keep)
        if keep is not None and self._keep_unparsed:
            keep = [
                kept or event.type == UNPARSED for kept, event in zip(keep, events, strict=True)
            ]
        if keep is not None and not all(keep):
            events = list(compress(events, keep))
            if records.count == 1:
                return msgspec.structs.replace(records, payload=b"", count=0, part=None), 0
            payload = separated(list(compress(decoded.records, keep)))
            records = msgspec.structs.replace(records, payload=payload, count=sum(keep))
        if self._transform is None or not self._transform.redacts or not records.count:
            return records, 0
        received = records_of(records.payload, records.count)
        redacted = self.redacted(received, events)
        changed = sum(map(ne, received, redacted))
        if changed:
            payload = separated(redacted)
            records = msgspec.structs.replace(records, payload=payload)
        return records, changed
