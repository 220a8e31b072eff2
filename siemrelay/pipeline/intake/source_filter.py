"""A source's own `events:`, `where:`, `limit:` and `redact:`, applied before records are stored."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import compress, pairwise
from typing import Final, NamedTuple

import msgspec

from siemrelay.core.event import REDACTED_PART, AuditEvent, Batch
from siemrelay.core.event_types import UNPARSED
from siemrelay.core.filters import EventFilter
from siemrelay.core.lines import records_of, separated
from siemrelay.decoders.contract import Decoder
from siemrelay.decoders.normalise import made_id
from siemrelay.sources.contract import Records
from siemrelay.transforms.limiting import Admission, Limiter, LimitPeriod
from siemrelay.transforms.transform import EventTransform

# To redact so many bytes takes 20 ms at worst, and usually one.
_LONG_BYTES: Final = 128 << 10


class Filtered(NamedTuple):
    """The selected records with all positions, and in how many something was redacted.

    `limited`: how many are left out by `limit`, by type. Hand `counted` to `not_stored` if these
    records are not stored. Records of the indexes in `withheld` are events as JSON: store `pieces`.
    """

    records: Records
    redacted: int = 0
    limited: Mapping[str, int] = {}
    counted: Mapping[LimitPeriod, int] = {}
    withheld: Collection[int] = ()

    def pieces(self) -> Iterator[Records]:
        """The records in order, those that are withheld each by itself, marked by `part`."""
        if not self.withheld:
            yield self.records
            return
        whole = records_of(self.records.payload, self.records.count)
        bounds = sorted({0, len(whole), *self.withheld, *(i + 1 for i in self.withheld)})
        for start, end in pairwise(bounds):
            yield msgspec.structs.replace(
                self.records, payload=separated(whole[start:end]), count=end - start,
                part=REDACTED_PART if start in self.withheld else None,
                positions=self.records.positions if end == len(whole) else (),
            )  # fmt: skip


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

    def takes_long(self, records: Records) -> bool:
        """Whether `apply` would hold up the loop: call it in a thread, nothing else meanwhile."""
        redacts = self._transform is not None and self._transform.redacts
        return redacts and len(records.payload) > _LONG_BYTES

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

    def redacted(
        self, records: Sequence[bytes], events: Sequence[AuditEvent]
    ) -> tuple[list[bytes], Collection[int]]:
        """The records without what the source redacts. `events`: what they were decoded to.

        And the indexes of those that are withheld: those in which the secrets cannot be found, and
        those that the source's decoder would not read any more.
        """
        if self._transform is None:
            return list(records), ()
        found, withheld = self._transform.redacted(records, events)
        changed = [
            i for i, (before, after) in enumerate(zip(records, found, strict=True))
            if i not in withheld and before != after and events[i].type != UNPARSED
        ]  # fmt: skip
        if not changed:
            return found, withheld
        some = separated([found[i] for i in changed])
        again = self._decoder.decode(Batch(1, len(changed), self._source, time.time(), some))
        broken = [
            i for i, event in zip(changed, again.events, strict=True) if event.type == UNPARSED
        ]
        for i in broken:
            found[i] = self._transform.instead(events[i])
        return found, withheld.union(broken)

    def not_stored(self, counted: Mapping[LimitPeriod, int]) -> None:
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
        limited, counted = dict[str, int](), Counter[LimitPeriod]()
        # A part alone is no event: a record in parts is stored whole.
        if self._limiter is not None and records.part is None:
            admission = self._limiter.admit(events, keep, now_s)
            keep, counted = admission.kept, admission.counted
            limited = self._limited(admission)
        sequences: Sequence[int] = range(1, records.count + 1)
        if keep is not None and not all(keep):
            events, sequences = list(compress(events, keep)), list(compress(sequences, keep))
            if not events:
                nothing = msgspec.structs.replace(records, payload=b"", count=0, part=None)
                return Filtered(nothing, 0, limited)
            payload = separated(list(compress(decoded.records, keep)))
            records = msgspec.structs.replace(records, payload=payload, count=sum(keep))
        if self._transform is None or not self._transform.redacts:
            return Filtered(records, 0, limited, counted)
        received = records_of(records.payload, records.count)
        redacted, withheld = self.redacted(received, events)
        for i in withheld:
            # One made of the record would give its secrets away to whoever tries them all.
            if events[i].id == made_id(received[i], self._source, sequences[i]):
                nameless = msgspec.structs.replace(events[i], id=None)
                redacted[i] = self._transform.instead(nameless)
        changed = sum(
            i in withheld or before != after
            for i, (before, after) in enumerate(zip(received, redacted, strict=True))
        )
        if changed:
            payload = separated(redacted)
            records = msgspec.structs.replace(records, payload=payload)
        if records.part is not None:
            withheld = ()
        return Filtered(records, changed, limited, counted, withheld)

    def _limited(self, admission: Admission) -> dict[str, int]:
        """How many are left out by type, which may hold what is redacted."""
        counts: Counter[str] = Counter()
        for name, count in admission.left_out.items():
            counts[self._transform.redacted_type(name) if self._transform else name] += count
        return counts
