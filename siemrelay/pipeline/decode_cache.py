"""Decodes each stored batch once for all sinks that read it at about the same time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
import trio

from siemrelay.core.event import DEFAULT_SEVERITY, AuditEvent, Batch, DecodedBatch
from siemrelay.core.event_types import UNKNOWN, UNPARSED
from siemrelay.core.times import rfc3339
from siemrelay.decoders.contract import Decoder
from siemrelay.log import get_logger

_log = get_logger()

# In raw bytes; decoded, a batch takes about three times its size.
_KEPT_BYTES: Final = 2 * 1024 * 1024

# A batch over this has one long record; a usual batch is at most half of it. Decoded or formatted,
# 10 MiB take up to 0.2 s, which is done in one go.
_LARGE_BYTES: Final = 1024 * 1024

# To accept a connection, read its request and answer it takes so many turns of the loop.
_TURNS: Final = 4

_NONE: Final[Mapping[str, str]] = {}


class DecodeCache:
    """A bounded cache of decoded batches.

    Invariant: only the newest batches are kept, so a lagging sink bypasses the cache and never
    evicts what the others share (test_a_lagging_sink_does_not_empty_the_cache).
    """

    def __init__(
        self, decoders: Mapping[str, Decoder], fallback: Decoder, *, share: bool,
        identities: Mapping[str, str] = _NONE,
    ) -> None:  # fmt: skip
        """`fallback` decodes records of removed sources; `share` is off for a single sink.

        `identities` are the former names of renamed sources, by which the ids of their records go.
        """
        self._large = trio.Lock()
        self.replace_decoders(decoders, fallback, share=share, identities=identities)

    def replace_decoders(
        self, decoders: Mapping[str, Decoder], fallback: Decoder, *, share: bool,
        identities: Mapping[str, str] = _NONE,
    ) -> None:  # fmt: skip
        """Decode with these from now on; what was decoded with others is forgotten."""
        self._decoders, self._fallback, self._share = decoders, fallback, share
        self._identities = identities
        self._kept: dict[int, DecodedBatch] = {}
        self._kept_bytes = 0

    async def turn(self, batch: Batch) -> None:
        """Wait for the turn of a batch that holds one long record: decode and format it then.

        Between two of them, of all sinks, everybody else has some turns of the loop; checked by
        test_long_records_leave_turns_to_others.
        """
        if len(batch.payload) > _LARGE_BYTES:
            async with self._large:
                for _ in range(_TURNS):
                    await trio.lowlevel.checkpoint()

    def get(self, batch: Batch) -> DecodedBatch:
        """The events of a batch. Never raises.

        A record on which its decoder raises becomes an Unparsed Record: a bug in one decoder must
        not stop the sinks for ever.
        """
        kept = self._kept.get(batch.first_sequence)
        if kept is not None:
            return kept
        decoder = self._decoders.get(batch.source, self._fallback)
        if (identity := self._identities.get(batch.source)) is not None:
            batch = msgspec.structs.replace(batch, identity=identity)
        try:
            decoded = decoder.decode(batch)
        except Exception as error:  # noqa: BLE001  (logged by the next; any bug ends here)
            decoded = _one_by_one(decoder, batch, error)
        if self._share and batch.first_sequence > max(self._kept, default=0):
            self._kept[batch.first_sequence] = decoded
            self._kept_bytes += len(batch.payload)
            while self._kept_bytes > _KEPT_BYTES and len(self._kept) > 1:
                oldest = self._kept.pop(min(self._kept))
                self._kept_bytes -= len(oldest.batch.payload)
        return decoded


def _one_by_one(decoder: Decoder, batch: Batch, error: Exception) -> DecodedBatch:
    """Decode each record alone; those on which the decoder raises become Unparsed Records."""
    events, failed = [], []
    for sequence, record in enumerate(batch.records(), batch.first_sequence):
        alone = msgspec.structs.replace(
            batch, first_sequence=sequence, count=1, payload=record + b"\n"
        )
        try:
            events += decoder.decode(alone).events
        except Exception as again:  # noqa: BLE001  (logged below, with the last traceback)
            error = again
            failed.append(sequence)
            events.append(_unparsed(alone, record))
    _log.error("internal error: decoder failed, records are forwarded as Unparsed Record",
               source=batch.source, first_sequence=batch.first_sequence,
               last_sequence=batch.next_sequence - 1, failed=failed[:10], records=len(failed),
               exc_info=error)  # fmt: skip
    return DecodedBatch(batch, events, unparsed=len(failed))


def _unparsed(batch: Batch, record: bytes) -> AuditEvent:
    return AuditEvent(
        id=f"{batch.source}-{batch.first_sequence}", time=rfc3339(batch.received_at), type=UNPARSED,
        category=UNKNOWN, severity=DEFAULT_SEVERITY, outcome="unknown",
        message=record.decode("utf-8", "replace"),
    )  # fmt: skip
