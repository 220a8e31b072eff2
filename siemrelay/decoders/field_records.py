"""Records that are nothing but named values → events; the common part of several decoders."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, tzinfo
from typing import Any

from siemrelay.core.event import Batch, DecodedBatch
from siemrelay.core.event_types import Catalogue
from siemrelay.core.lines import texts_of
from siemrelay.decoders.contract import MAX_TIME_AHEAD_S, MAX_TIME_PAST_S
from siemrelay.decoders.fields import Spellings
from siemrelay.decoders.json.lookup import FieldLookup
from siemrelay.decoders.normalise import Finisher, event_of_part, unparsed


class FieldsDecoder:
    """Decodes the batches of one source; see `decoders.contract.Decoder`."""

    def __init__(
        self, read: Callable[[str], dict[str, Any] | None], spellings: Spellings,
        wanted: frozenset[str], catalogue: Catalogue,
        max_time_past: float = MAX_TIME_PAST_S, max_time_ahead: float = MAX_TIME_AHEAD_S,
        zone: tzinfo = UTC,
    ) -> None:  # fmt: skip
        """`read` gives a record's values under known spellings; None if it is of another form."""
        self._read, self._attributes = read, "attributes" in wanted
        self._lookup = FieldLookup(spellings, catalogue.values)
        self._finished = Finisher(catalogue, wanted, max_time_past, max_time_ahead, zone).finished

    def decode(self, batch: Batch) -> DecodedBatch:
        """Exactly one event per record; never raises for what is in the records."""
        if batch.part is not None:
            event, unparsed_count = event_of_part(batch)
            return self._finished(batch, [event], unparsed_count)
        records = batch.records()
        texts, replaced = texts_of(records)
        found = [self._read(text.rstrip("\r")) for text in texts]
        known = list(map(bool, found))
        present = [fields for fields in found if fields]
        made = iter(self._lookup.events(present, attributes=self._attributes))
        events = [
            next(made) if is_known else unparsed(record)
            for is_known, record in zip(known, records, strict=True)
        ]
        decoded = self._finished(batch, events, len(records) - len(present))
        decoded.replaced = replaced
        return decoded
