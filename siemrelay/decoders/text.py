"""Records of plain text: each is the message of an event."""

from __future__ import annotations

from typing import Final

from siemrelay.core.event import AuditEvent, Batch, DecodedBatch
from siemrelay.core.event_types import Catalogue
from siemrelay.core.lines import texts_of
from siemrelay.decoders.contract import DecoderKind, NoOptions
from siemrelay.decoders.fields import Spellings
from siemrelay.decoders.normalise import Finisher, event_of_part


class TextDecoder:
    """Decodes the batches of one source; see `decoders.contract.Decoder`."""

    def __init__(self, spellings: Spellings, wanted: frozenset[str], catalogue: Catalogue) -> None:
        self._finished = Finisher(catalogue, wanted).finished

    def decode(self, batch: Batch) -> DecodedBatch:
        """Exactly one event per record; never raises for what is in the records."""
        if batch.part is not None:
            event, unparsed_count = event_of_part(batch)
            return self._finished(batch, [event], unparsed_count)
        texts, replaced = texts_of(batch.records())
        events = [AuditEvent(message=text.rstrip("\r\0")) for text in texts]
        decoded = self._finished(batch, events, 0)
        decoded.replaced = replaced
        return decoded


TEXT: Final = DecoderKind(NoOptions, TextDecoder, "lines of text, each the message of an event")
