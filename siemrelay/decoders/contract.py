"""What a decoder is: a batch of records in, events out."""

from __future__ import annotations

from typing import Protocol

from siemrelay.event import Batch, DecodedBatch


class Decoder(Protocol):
    """Decodes the batches of one source. Keeps what it learns of them; one task at a time."""

    def decode(self, batch: Batch) -> DecodedBatch:
        """Exactly one event per record, in order; never raises for what is in the records."""
