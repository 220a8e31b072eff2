"""Delivers the buffer's records to one sink: sends batches in order and moves the cursor.

Each connection has two tasks. The sender fills batches and hands them to the session; the settler
waits for the receiver's confirmation of each and moves the cursor past it. When either fails, both
end, and the next attempt starts from the cursor: whatever is unsettled is sent again.

Invariants (test_delivery.py):
- the cursor passes a record only when it was filtered out, confirmed, found to be at the receiver
  already, or stored as a dead letter;
- messages leave in sequence order;
- a message that is sent again has the same number in its sealed stream (`pipeline.sealing`).
"""

from __future__ import annotations

import gc
import random
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import structlog
import trio

from siemrelay.buffer.contract import Deliverable
from siemrelay.buffer.cursors import Outcome
from siemrelay.buffer.dead_letters import letter
from siemrelay.core.backoff import HOLD_PROBE_S, delay_s
from siemrelay.core.errors import (
    BatchRefused,
    BufferFull,
    DeliveryError,
    SinkHolds,
    SinkWaits,
    most_lasting_error,
    without_traceback,
)
from siemrelay.core.event import Batch
from siemrelay.net.tasks import Mutex
from siemrelay.pipeline.batching import BatchMaker, DeliveryBatch
from siemrelay.pipeline.coalescing import RequestPace
from siemrelay.pipeline.format_cache import SinkReader
from siemrelay.pipeline.in_flight import InFlight
from siemrelay.pipeline.messages import SinkMessages
from siemrelay.pipeline.observer import Observers
from siemrelay.pipeline.read_ahead import ReadAhead
from siemrelay.pipeline.rejection import RejectionBreaker, isolate
from siemrelay.pipeline.sealing.sealed_stream import SealedStream
from siemrelay.pipeline.sent_again import NumberSource
from siemrelay.pipeline.sink_status import SinkStatus
from siemrelay.sinks.contract import (
    BatchLimits,
    Certified,
    ConnectsLazily,
    Session,
    Settlement,
    Sink,
)
from siemrelay.telemetry.stats import SinkStats

_log = structlog.get_logger()

# Batches in flight where the protocol sets no other number: enough to hide a round trip, few
# enough that little is sent twice after a broken connection.
_IN_FLIGHT_BATCHES: Final = 4

# The longest Retry-After that is honoured: enough for a receiver's maintenance, too short for a
# mistaken value to silence the sink for a day.
_LONGEST_ASKED_S: Final = 900.0

# From 3.12 on a frame that an exception passed through may be in a cycle with it (CPython issue
# 100964), so a failed session keeps its batches until a collection, which is seldom. They are young
# then: collecting these takes milliseconds, after a failure and its pause.
_FRAMES_MAKE_CYCLES: Final = sys.version_info >= (3, 12)


class Retry(msgspec.Struct, frozen=True):
    """The pauses between attempts, in seconds."""

    initial_s: float
    max_s: float


class Delivery:
    """One sink's delivery loop. `run` never returns and never gives up."""

    def __init__(
        self, name: str, sink: Sink, reader: SinkReader, limits: BatchLimits, buffer: Deliverable,
        stats: SinkStats, retry: Retry, observers: Observers | None = None,
        stream: SealedStream | None = None, numbers: NumberSource | None = None,
    ) -> None:  # fmt: skip
        """`stream` numbers and seals the messages; None without `seal:`.

        `numbers` only numbers those that were sent before.
        """
        self.stream, self._numbers = stream, stream or numbers
        self._reader, self._maker = reader, BatchMaker(limits)
        self._observers: Observers = [] if observers is None else observers
        self._name, self._sink = name, sink
        self._certified = sink if isinstance(sink, Certified) else None
        self._connects_lazily = isinstance(sink, ConnectsLazily)
        self._max_in_flight = limits.in_flight_batches or _IN_FLIGHT_BATCHES
        self._buffer, self._stats, self._retry = buffer, stats, retry
        self._cursor, self._first_wanted_sequence = buffer.cursor(name), 0
        self._failures, self._connected_at = 0, float("inf")
        self._pause: trio.CancelScope | None = None
        self._status, self._breaker = SinkStatus(name, stats, self._undelivered), RejectionBreaker()
        self._sending, self._pace = Mutex(), RequestPace(limits.max_wait_s)
        # Records before this may have been sent, by this process or by one before it.
        self._sent_end = buffer.end

    async def run(self) -> None:
        """Deliver for ever. Cancelling closes the connection; the cursor stays where it is."""
        pause = 0.0
        while True:
            self._connected_at = float("inf")
            error = await self._attempt()
            lived_s = trio.current_time() - self._connected_at
            if isinstance(error, SinkWaits) and not self._undelivered() and lived_s > pause:
                # A receiver that closes idle connections is not down. One that closes at once is:
                # its connections live shorter than the pause before them.
                self._failures, pause = 0, self._retry.initial_s
            else:
                pause = self._pause_after(error)
            with trio.move_on_after(pause) as self._pause:
                await self._pass_filtered()
            self._pause = None
            if _FRAMES_MAKE_CYCLES:
                gc.collect(1)

    def try_again(self) -> bool:
        """End the pause after a failure, if there is one: a person may have fixed the cause."""
        if self._pause is None:
            return False
        self._pause.cancel()
        return True

    def failed(self, error: BaseException) -> None:
        """Record that `run` ended with an internal error; the supervisor runs it again."""
        self._status.failed()
        self._status.note("failed", f"internal error: {error or type(error).__name__}")

    def _pause_after(self, error: DeliveryError) -> float:
        self._failures += 1
        self._status.failed()
        if isinstance(error, SinkHolds):
            self._status.note("holding", str(error))
            return HOLD_PROBE_S
        throttled = isinstance(error, SinkWaits) and error.throttled
        self._status.note("waiting", str(error), throttled=throttled)
        pause = delay_s(
            self._failures, self._retry.initial_s, self._retry.max_s, random=random.random
        )
        asked_s = error.after_s if isinstance(error, SinkWaits) else None
        return max(pause, min(asked_s or 0.0, _LONGEST_ASKED_S))

    def _undelivered(self) -> int:
        return self._buffer.end - self._cursor.next_sequence

    async def _attempt(self) -> DeliveryError:
        """Deliver over one connection until it fails; returns the most lasting error."""
        try:
            async with self._sink.session() as session:
                self._connected_at = trio.current_time()
                self._note_certificate()
                if not self._failures or not self._undelivered():
                    self._status.opened(connected=not self._connects_lazily)
                if self.stream is not None:
                    await self.stream.begin()
                in_flight = InFlight(session, self._max_in_flight)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send, in_flight)
                    nursery.start_soon(self._settle, in_flight)
        except DeliveryError as error:
            return without_traceback(error)
        except BaseExceptionGroup as group:
            decided = most_lasting_error(group)
            without_traceback(group)
            return decided
        raise AssertionError("a delivery attempt ends by an error only")

    async def _pass_filtered(self) -> None:
        """Move the cursor over filtered records, which needs no receiver. Never returns."""
        # Known from an earlier pause: do not read it again.
        if self._cursor.next_sequence != self._first_wanted_sequence:
            with self._reader.reading(self._cursor.next_sequence):
                self._first_wanted_sequence = await self._find_wanted()
        await trio.sleep_forever()

    async def _find_wanted(self) -> int:
        """The first record that the sink takes; the cursor passes those before it."""
        position = self._cursor.next_sequence
        while True:
            for batch in await self._buffer.read(position):
                if batch.next_sequence <= position:
                    continue
                found = await self._reader.messages(batch)
                wanted = found.first_wanted(position, batch.next_sequence)
                filtered = wanted - max(position, batch.first_sequence)
                self._buffer.advance(self._name, wanted, Outcome(filtered=filtered))
                self._status.left_out(found.left_out(position, wanted))
                if wanted < batch.next_sequence:
                    return wanted
                position = wanted
            await trio.lowlevel.checkpoint()

    # -- sending ----------------------------------------------------------

    async def _send(self, in_flight: InFlight) -> None:
        position = self._cursor.next_sequence
        batches = self._maker.batches if self._numbers is None else self._numbered
        with self._reader.reading(position):
            ahead = ReadAhead(self._buffer, self._reader, position)
            waiting: DeliveryBatch | None = None
            deadline = float("inf")
            while True:
                if self.stream is not None and self.stream.comes_next(position):
                    if waiting is not None:
                        await self._hand_over(in_flight, waiting)
                        waiting, deadline = None, float("inf")
                    if (seal := await self.stream.next_seal(position)) is not None:
                        await self._hand_over(in_flight, seal)
                        await self.stream.wait_for_room()
                found = None
                if waiting is None and self.stream is None:
                    found = await ahead.next()
                else:
                    with self._until(deadline):
                        found = await ahead.next()
                if found is None:
                    if waiting is not None and trio.current_time() >= deadline:
                        await self._hand_over(in_flight, waiting)
                        waiting, deadline = None, float("inf")
                    continue
                stored, messages = found
                if self.stream is not None:
                    await self.stream.extend(stored.next_sequence)
                for batch in batches(stored, messages, position):
                    if waiting is not None and self._maker.join(waiting, batch):
                        continue
                    if waiting is not None:
                        await self._hand_over(in_flight, waiting)
                    waiting, deadline = batch, self._pace.due_at
                position = stored.next_sequence
                if waiting is not None and (not waiting.messages or self._maker.full(waiting)):
                    await self._hand_over(in_flight, waiting)
                    waiting, deadline = None, float("inf")

    def _numbered(
        self, stored: Batch, found: SinkMessages, position: int
    ) -> Iterator[DeliveryBatch]:
        assert self._numbers is not None
        numbering = self._numbers.numbering_at(stored, position)
        for batch in self._maker.batches(stored, found, position, numbering):
            self._numbers.sent(batch)
            yield batch

    def _until(self, deadline: float) -> trio.CancelScope:
        if self.stream is None:
            return trio.CancelScope(deadline=deadline)
        return self.stream.reading(deadline)

    async def _hand_over(self, in_flight: InFlight, batch: DeliveryBatch) -> None:
        now = self._status.progressed()
        ticket: Any = None
        if batch.messages:
            self._pace.note_sent(now)
            await in_flight.wait_for_room()
            batch.sent_before = bisect_left(batch.sequences, self._sent_end)
            if batch.sequences:
                self._sent_end = max(self._sent_end, batch.sequences[-1] + 1)
            try:
                async with self._sending:
                    ticket = await in_flight.session.send(batch.messages)
            except BatchRefused as refused:
                ticket = refused
            for observer in () if batch.seal else self._observers:
                observer.sent(self._name, batch)
        if in_flight.idle and self._is_confirmed(in_flight, batch, ticket):
            await self._note_settled(batch, ())
        else:
            await in_flight.put(batch, ticket)

    # -- settling ---------------------------------------------------------

    def _is_confirmed(self, in_flight: InFlight, batch: DeliveryBatch, ticket: Any) -> bool:
        """Whether the receiver has taken all of its part in the batch."""
        if not batch.messages:
            return True
        early = None if isinstance(ticket, BatchRefused) else in_flight.early
        if early is None or not early.is_confirmed(ticket):
            return False
        self._breaker.note(len(batch.messages), ())
        return True

    async def _settle(self, in_flight: InFlight) -> None:
        while True:
            batch, ticket = await in_flight.take()
            refusals = (
                await self._confirmed(in_flight.session, batch, ticket) if batch.messages else ()
            )
            await self._note_settled(batch, refusals)

    async def _note_settled(self, batch: DeliveryBatch, refusals: Settlement) -> None:
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
        if self.stream is not None and batch.messages:
            confirmed = await self.stream.confirmed(batch, lacking)
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
        self._count(batch, refusals, duplicates)
        if self.stream is not None:
            self.stream.noted()

    async def _settle_seal(self, batch: DeliveryBatch, refusals: Settlement) -> None:
        assert self.stream is not None
        # A seal that the receiver has already is the same one, sent before.
        lacking = [refusal for refusal in refusals if not refusal.duplicate]
        confirmed = await self.stream.confirmed(batch, lacking)
        outcome = Outcome(confirmed_at=time.time(), confirmed=confirmed)
        self._buffer.advance(self._name, batch.next_sequence, outcome)
        self._count(batch, lacking, [])
        self.stream.noted()

    async def _confirmed(self, session: Session, batch: DeliveryBatch, ticket: Any) -> Settlement:
        """The receiver's rejections of a batch, once everything else in it is confirmed."""
        try:
            if isinstance(ticket, BatchRefused):
                raise ticket
            refusals = await session.confirm(ticket)
            taken = len(batch.messages) - len(refusals)
        except BatchRefused as refused:
            # The sender waits meanwhile: one task at a time uses the session.
            async with self._sending:
                refusals, taken = await isolate(
                    session, batch.messages, refused, proven=self._breaker.proven
                )
        self._breaker.note(taken, refusals)
        return refusals

    def _count(self, batch: DeliveryBatch, refusals: Settlement, duplicates: Sequence[int]) -> None:
        self._status.settled(batch, len(refusals), len(duplicates))
        if duplicates:
            self._status.found_duplicates([batch.sequences[index] for index in duplicates])
        if batch.messages:
            self._failures = 0
            if self._connects_lazily:
                self._note_certificate()
            if len(refusals) < len(batch.messages):
                self._status.note("up")
            else:
                self._status.only_refused(refusals[-1])

    def _note_certificate(self) -> None:
        if self._certified is not None:
            self._stats.certificate_expires_at = self._certified.certificate_expires_at

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
