"""Settles a sink's batches: moves its cursor past what the receiver confirmed or refused.

Invariants (test_delivery.py):
- the cursor passes a record only when it was filtered out, confirmed, found to be at the receiver
  already, or stored as a dead letter;
- each dead letter is stored in one transaction with the cursor that passes its record.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import structlog

from siemrelay.buffer.contract import Deliverable
from siemrelay.buffer.dead_letters import letter
from siemrelay.buffer.sink_cursor import Outcome
from siemrelay.core.errors import BatchRefused, BufferFull, SinkWaits
from siemrelay.pipeline.batching import DeliveryBatch
from siemrelay.pipeline.in_flight import InFlight
from siemrelay.pipeline.observer import DeliveryObserver
from siemrelay.pipeline.rejection import RejectionBreaker, isolate
from siemrelay.pipeline.retries import Retries
from siemrelay.pipeline.sink_status import SinkStatus
from siemrelay.sinks.contract import Settlement

if TYPE_CHECKING:
    from siemrelay.pipeline.sealing.sealed_stream import SealedStream

_log = structlog.get_logger()


class Settling:
    """One sink's settling, for all its sessions; `run` is a session's task.

    Raises what `Session.confirm` raises, and SinkWaits when dead letters cannot be stored: the
    batch stays unsettled, and is sent again. Cancelling leaves it so too.
    """

    def __init__(
        self, name: str, buffer: Deliverable, status: SinkStatus, retries: Retries,
        observers: list[DeliveryObserver], stream: SealedStream | None,
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
            self._status.progressed()

    async def sent(
        self, in_flight: InFlight, batch: DeliveryBatch, ticket: Any, now: float
    ) -> None:
        """Settle what is confirmed by now, up to this batch that was just sent; else queue it."""
        if batch.messages and self._stream is None and not in_flight.is_time_to_ask(now):
            await in_flight.put(batch, ticket)
            return
        self.settle_confirmed(in_flight)
        if in_flight.idle and in_flight.is_confirmed(batch, ticket):
            await self.settle(batch, ())
        else:
            await in_flight.put(batch, ticket)

    def settle_confirmed(self, in_flight: InFlight) -> None:
        """Settle the batches of which it is known without waiting that they are confirmed."""
        # That is done between two turns of the settler: the order is kept.
        while (earliest := in_flight.earliest()) is not None:
            if not (self._is_plain(earliest[0]) and in_flight.is_confirmed(*earliest)):
                break
            in_flight.remove_earliest()
            self._settle_plain(earliest[0])

    def _is_plain(self, batch: DeliveryBatch) -> bool:
        """Whether no more is to be done for it than to move the cursor, if nothing is refused."""
        return self._stream is None and not batch.failed

    def _settle_plain(self, batch: DeliveryBatch) -> None:
        for observer in self._observers:
            observer.settled(self._name, batch, ())
        taken = len(batch.messages)
        if taken:
            self._breaker.note(taken, ())
        outcome = Outcome(taken, 0, batch.filtered, 0, time.time() if taken else 0.0)
        self._buffer.advance(self._name, batch.next_sequence, outcome)
        self._status.settled(batch)
        if taken:
            self._retries.succeeded()
            self._status.note("up")

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
            self._status.isolating(refused)
            async with in_flight.sending:
                refusals, taken = await isolate(
                    in_flight.session, batch.messages, refused, proven=self._breaker.proven,
                    progress=self._status.progressed,
                )  # fmt: skip
        if refusals:
            self._breaker.note(taken, refusals)
        return refusals

    async def settle(self, batch: DeliveryBatch, refusals: Settlement) -> None:
        """Move the cursor past the earliest batch, of which the receiver refused these messages."""
        if not refusals:
            if self._is_plain(batch):
                self._settle_plain(batch)
                return
            if batch.messages:
                self._breaker.note(len(batch.messages), ())
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
