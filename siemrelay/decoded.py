"""Decoded batches, shared by the sinks that are near the tail."""

from __future__ import annotations

from collections.abc import Mapping

from siemrelay.decoders.contract import Decoder
from siemrelay.event import Batch, DecodedBatch

# In raw bytes; decoded, a batch takes about three times its size.
_KEPT_BYTES = 2 * 1024 * 1024


class DecodedCache:
    """Decodes each batch once for all the sinks that read it at about the same time.

    Invariant: only the newest batches are kept, so a sink that lags reads past the cache and never
    pushes out what the others share; checked by test_a_lagging_sink_does_not_empty_the_cache.
    """

    def __init__(self, decoders: Mapping[str, Decoder], fallback: Decoder, *, share: bool) -> None:
        """`fallback` reads records whose source is no longer configured; `share`: several sinks."""
        self._decoders, self._fallback, self._share = decoders, fallback, share
        self._kept: dict[int, DecodedBatch] = {}
        self._kept_bytes = 0

    def get(self, batch: Batch) -> DecodedBatch:
        """The events of a batch."""
        kept = self._kept.get(batch.first_sequence)
        if kept is not None:
            return kept
        decoded = self._decoders.get(batch.source, self._fallback).decode(batch)
        if self._share and batch.first_sequence > max(self._kept, default=0):
            self._kept[batch.first_sequence] = decoded
            self._kept_bytes += len(batch.payload)
            while self._kept_bytes > _KEPT_BYTES and len(self._kept) > 1:
                oldest = self._kept.pop(min(self._kept))
                self._kept_bytes -= len(oldest.batch.payload)
        return decoded
