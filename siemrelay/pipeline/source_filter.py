"""A source's own `events:` and `where:`, applied before records are stored."""

from __future__ import annotations

import time
from io import BytesIO
from itertools import compress

import msgspec

from siemrelay.core.event import Batch
from siemrelay.core.event_types import UNPARSED
from siemrelay.core.filters import EventFilter
from siemrelay.decoders.contract import Decoder
from siemrelay.sources.contract import Records
from siemrelay.transforms.transform import EventTransform


class SourceFilter:
    """Filters one source's records on their way into the buffer."""

    def __init__(
        self, source: str, decoder: Decoder, events: EventFilter, *, keep_unparsed: bool,
        transform: EventTransform | None = None,
    ) -> None:  # fmt: skip
        """`keep_unparsed` keeps records that cannot be parsed, whatever the filters say."""
        self._source, self._decoder, self._events, self._transform = (
            source,
            decoder,
            events,
            transform,
        )
        self._keep_unparsed = keep_unparsed

    def apply(self, records: Records) -> Records:
        """The selected records with all positions; `records` itself if all are selected."""
        if not records.count:
            return records
        batch = Batch(
            1, records.count, self._source, time.time(), records.payload, records.part
        )  # fmt: skip
        decoded = self._decoder.decode(batch)
        events = decoded.events
        keep = self._events.select(events)
        if self._transform is not None:
            keep = self._transform.select(decoded, keep)
        if keep is not None and self._keep_unparsed:
            keep = [
                kept or event.type == UNPARSED for kept, event in zip(keep, events, strict=True)
            ]
        if keep is None or all(keep):
            return records
        if records.count == 1:
            return msgspec.structs.replace(records, payload=b"", count=0, part=None)
        payload = b"".join(compress(BytesIO(records.payload).readlines(), keep))
        return msgspec.structs.replace(records, payload=payload, count=sum(keep))
