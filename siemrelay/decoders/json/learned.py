"""What a source's JSON records look like: learned from some of them, anew when they change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from siemrelay.core.event import AuditEvent
from siemrelay.decoders.fields import Spellings
from siemrelay.decoders.json.shape import REFUSALS, Shape, learn

# Enough records to meet every common one; each costs about 10 µs, once.
_SAMPLE_RECORDS: Final = 64

# A batch in which more than one record in ten does not fit is looked at for a new shape.
_MISFITS_TO_LEARN_ANEW: Final = 0.1

# A source without one shape is asked about it less and less often, but not never.
_LONGEST_BACKOFF_BATCHES: Final = 1024

_RECORD: Final = msgspec.json.Decoder(dict[str, Any])


class Learner:
    """Decodes records of one source by their shape, as far as they have one.

    The events are not normalised yet. Batch by batch: `together`, if need be `each`, `misfits`.
    """

    def __init__(self, spellings: Spellings, attributes: Any) -> None:
        """`attributes` as in `shape.learn`."""
        self._spellings, self._attributes = spellings, attributes
        self.shape: Shape | None = None
        self.backoff, self.learn_at = 1, 0
        self._batches = 0

    @property
    def tidy(self) -> bool:
        """Whether categories, severities and outcomes come out as events have them."""
        return self.shape is not None and self.shape.tidy

    def together(
        self, payload: bytes, count: int, records: Callable[[], Sequence[bytes]]
    ) -> list[AuditEvent] | None:
        """The events of all `count` records of a payload, None if one of them does not fit.

        `records` gives them one by one, where they are asked for.
        """
        self._batches += 1
        if self.shape is None and self._batches > self.learn_at:
            self._learn(records())
        if self.shape is None:
            return None
        try:
            rows = self.shape.rows(payload, count)
        except REFUSALS:
            return None
        return None if rows is None else self.shape.events(rows)

    def each(self, records: Sequence[bytes]) -> list[AuditEvent | None]:
        """The event of each record, None where it does not fit."""
        if self.shape is None:
            return [None] * len(records)
        rows = list(map(self._row, records))
        events = iter(self.shape.events([row for row in rows if row is not None]))
        return [None if row is None else next(events) for row in rows]

    def misfits(self, number: int, records: Sequence[bytes]) -> None:
        """So many of the records, though they are JSON objects, do not fit."""
        if number > len(records) * _MISFITS_TO_LEARN_ANEW and self._batches > self.learn_at:
            self._learn(records)

    def _learn(self, records: Sequence[bytes]) -> None:
        sample = []
        for record in records[:: max(len(records) // _SAMPLE_RECORDS, 1)][:_SAMPLE_RECORDS]:
            try:
                sample.append(_RECORD.decode(record))
            except REFUSALS:
                continue
        self.shape = learn(sample, self._spellings, attributes=self._attributes)
        self.backoff = min(self.backoff * 2, _LONGEST_BACKOFF_BATCHES)
        self.learn_at = self._batches + self.backoff

    def _row(self, record: bytes) -> Any:
        assert self.shape is not None
        try:
            return self.shape.row(record)
        except REFUSALS:
            return None
