"""What a decoder is: a batch of records in, events out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from siemrelay.core.event import Batch, DecodedBatch
from siemrelay.core.options import Options


class Decoder(Protocol):
    """Decodes the batches of one source. Keeps what it learns of them; one task at a time."""

    def decode(self, batch: Batch) -> DecodedBatch:
        """Exactly one event per record, in order; never raises for what is in the records."""


class NoOptions(Options):
    """Nothing to set."""


class DecoderKind(msgspec.Struct, frozen=True):
    """How records are read.

    `build` takes spellings, the fields wanted and the catalogue, and `options` by their names.
    """

    options: type[Options]
    build: Callable[..., Decoder]
    summary: str
