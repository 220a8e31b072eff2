"""Settles a sink's batches: moves its cursor past what the receiver confirmed or refused.

Invariants (test_delivery.py):
- the cursor passes a record only when it was filtered out, confirmed, found to be at the receiver
  already, or stored as a dead letter;
- each dead letter is stored in one transaction with the cursor that passes its record.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import structlog

from siemrelay.buffer.contract import Deliverable
from siemrelay.buffer.dead_letters import letter
from siemrelay.buffer.sink_cursor import Outcome
from siemrelay.core.errors import BatchRefused, BufferFull, SinkWaits
from siemrelay.pipeline.batching import DeliveryBatch
from siemrelay.pipeline.in_flight import InFlight
from siemrelay.pipeline.observer import Observers
from siemrelay.pipeline.rejection import RejectionBreaker, isolate
from siemrelay.pipeline.retries import Retries
from siemrelay.pipeline.sealing.sealed_stream import SealedStream
from siemrelay.pipeline.sink_status import SinkStatus
from siemrelay.sinks.contract import Settlement

_log = structlog.get_logger()


class Settling:
    """One sink's settling, for all its sessions; `run` is a session's task.

    Raises what `Session.confirm` raises, and SinkWaits when dead letters cannot be stored: the
    batch stays unsettled, and is sent again. Cancelling leaves it so too.
    """

    def __init__(
        self, name: str, buffer: Deliverable, status: SinkStatus, retries: Retries,
        observers: Observers, stream: SealedStream | None,
    ) -> None:  # fmt: skip
        self._name, self._buffer, self._stream = name, buffer, stream
        self._status, self._retries, self._observers = status, retries, observers
        self._breaker = RejectionBreaker()

    async def run(self, in_flight: InFlight) -> None:
        """Settle the batches of one session in the order of sending. Ends by an error only."""
        while True:
            batch, ticket = await in_flight.take()
            refusals = await self._confirmed(in_flight, batch, ticket) if batch.messages else ()
            await self.settle(batch, refusals)

    def is_confirmed(self, in_flight: InFlight, batch: DeliveryBatch, ticket: Any) -> bool:
        """Whether the receiver has taken all of its part in a batch that was just sent."""
        if not batch.messages:
            return True
        early = None if isinstance(ticket, BatchRefused) else in_flight.early
        if early is None or not early.is_confirmed(ticket):
            return False
        self._breaker.note(len(batch.messages), ())
        return True

    async def _confirmed(
        self, in_flight: InFlight, batch: DeliveryBatch, ticket: Any
    ) -> Settlement:
        """The receiver's rejections of a batch, once everything else in it is confirmed."""
        try:
            if isinstance(ticket, BatchRefused):
                raise ticket
            refusals = await in_flight.session.confirm(ticket)
            taken = len(batch.messages) - len(refusals)
        except BatchRefused as refused:
            # The sender waits meanwhile: one task at a time uses the session.
            async with in_flight.sending:
                refusals, taken = await isolate(
                    in_flight.session, batch.messages, refused, proven=self._breaker.proven
                )
        self._breaker.note(taken, refusals)
        return refusals

    async def settle(self, batch: DeliveryBatch, refusals: Settlement) -> None:
        """Move the cursor past a batch of which the receiver refused these messages."""
        if batch.seal:
            await self._settle_seal(batch, refusals)
            return
        for observer in self._observers:
            observer.settled(self._name, batch, refusals)
        lacking: Settlement = ()
        duplicates: list[int] = []
        if refusals:
            lacking = [r for r in refusals if not r.duplicate or r.index >= batch.sent_before]
            duplicates = [refusal.index for refusal in lacking if refusal.duplicate]
            refusals = [refusal for refusal in refusals if not refusal.duplicate]
        confirmed = None
        if self._stream is not None and batch.messages:
            confirmed = await self._stream.confirmed(batch, lacking)
        outcome = Outcome(
            delivered=len(batch.messages) - len(refusals) - len(duplicates),
            duplicates=len(duplicates), filtered=batch.filtered,
            refused=len(refusals) + len(batch.failed),
            confirmed_at=time.time() if batch.messages else 0.0, confirmed=confirmed,
        )  # fmt: skip
        if outcome.refused:
            await self._store_dead_letters(batch, refusals, outcome)
        else:
            self._buffer.advance(self._name, batch.next_sequence, outcome)
        self._note(batch, refusals, duplicates)

    async def _settle_seal(self, batch: DeliveryBatch, refusals: Settlement) -> None:
        assert self._stream is not None
        # A seal that the receiver has already is the same one, sent before.
        lacking = [refusal for refusal in refusals if not refusal.duplicate]
        confirmed = await self._stream.confirmed(batch, lacking)
        outcome = Outcome(confirmed_at=time.time(), confirmed=confirmed)
        self._buffer.advance(self._name, batch.next_sequence, outcome)
        self._note(batch, lacking, [])

    def _note(self, batch: DeliveryBatch, refusals: Settlement, duplicates: Sequence[int]) -> None:
        self._status.settled(batch, len(refusals), len(duplicates))
        if duplicates:
            self._status.found_duplicates([batch.sequences[index] for index in duplicates])
        if batch.messages:
            self._retries.succeeded()
            if len(refusals) < len(batch.messages):
                self._status.note("up")
            else:
                self._status.only_refused(refusals[-1])
        if self._stream is not None:
            self._stream.noted()

    async def _store_dead_letters(
        self, batch: DeliveryBatch, refusals: Settlement, outcome: Outcome
    ) -> None:
        failed = [
            (batch.sequences[r.index], r.code, r.reason, batch.messages[r.index]) for r in refusals
        ]
        failed += [(sequence, "internal", reason, b"") for sequence, reason in batch.failed]
        records = await self._buffer.records({sequence for sequence, *_ in failed})
        letters = [
            letter(self._name, sequence, code, reason, records.get(sequence), message)
            for sequence, code, reason, message in sorted(failed)
        ]
        try:
            # One transaction with the cursor, so that each stands for exactly one record.
            await self._buffer.store_dead_letters(letters, batch.next_sequence, outcome)
        except BufferFull as error:
            raise SinkWaits(f"dead letters cannot be stored: {error}") from error
        _log.warning(
            "events refused", sink=self._name, events=len(letters),
            first_sequence=letters[0].sequence, code=letters[0].code, reason=letters[0].reason,
            kept="as dead letters in the buffer",
        )  # fmt: skip
