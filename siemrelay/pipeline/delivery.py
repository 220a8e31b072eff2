"""Delivers the buffer's records to one sink: sends batches in order and moves the cursor.

Each connection has two tasks. The sender fills batches and hands them to the session; the settler
waits for the receiver's confirmation of each and moves the cursor past it. When either fails, both
end, and the next attempt starts from the cursor: whatever is unsettled is sent again.

Invariants (test_delivery.py):
- the cursor passes a record only as `pipeline.settling` says;
- messages leave in sequence order;
- a message that is sent again has the same number in its sealed stream (`pipeline.sealing`).
"""

from __future__ import annotations

import gc
import sys
from bisect import bisect_left
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import trio

from siemrelay.buffer.contract import Deliverable
from siemrelay.buffer.sink_cursor import Outcome
from siemrelay.core.errors import (
    BatchRefused,
    DeliveryError,
    SinkHolds,
    SinkWaits,
    most_lasting_error,
    without_traceback,
)
from siemrelay.core.event import Batch
from siemrelay.net.clock import sleep_until
from siemrelay.pipeline.batching import BatchMaker, DeliveryBatch
from siemrelay.pipeline.coalescing import RequestPace
from siemrelay.pipeline.format_cache import SinkReader
from siemrelay.pipeline.formatting.messages import SinkMessages
from siemrelay.pipeline.in_flight import InFlight
from siemrelay.pipeline.observer import DeliveryObserver
from siemrelay.pipeline.read_ahead import ReadAhead
from siemrelay.pipeline.retries import Retries, Retry
from siemrelay.pipeline.sent_again import NumberSource
from siemrelay.pipeline.settling import Settling
from siemrelay.pipeline.sink_status import SinkStatus
from siemrelay.sinks.contract import BatchLimits, Sink
from siemrelay.telemetry.stats import SinkStats

if TYPE_CHECKING:
    from siemrelay.pipeline.sealing.sealed_stream import SealedStream

# Batches in flight where the protocol sets no other number: enough to hide a round trip, few
# enough that little is sent twice after a broken connection.
_IN_FLIGHT_BATCHES: Final = 4

# While little comes, a sink that gathers it reads what came so often. A turn for each small commit
# would cost more than all its records.
_TRICKLE_S: Final = 0.2

# From 3.12 on a frame that an exception passed through may be in a cycle with it (CPython issue
# 100964), so a failed session keeps its batches until a collection, which is seldom. They are young
# then: collecting these takes milliseconds, after a failure and its pause.
_FRAMES_MAKE_CYCLES: Final = sys.version_info >= (3, 12)


class Delivery:
    """One sink's delivery loop. `run` never returns and never gives up."""

    def __init__(
        self, name: str, sink: Sink, reader: SinkReader, limits: BatchLimits, buffer: Deliverable,
        stats: SinkStats, retry: Retry, observers: list[DeliveryObserver] | None = None,
        stream: SealedStream | None = None, numbers: NumberSource | None = None,
    ) -> None:  # fmt: skip
        """`stream` numbers and seals the messages; None without `seal:`.

        `numbers` only numbers those that were sent before.
        """
        self.stream = stream
        self._numbers: NumberSource | None = stream or numbers
        self._name, self._sink, self._buffer = name, sink, buffer
        self._observers = [] if observers is None else observers
        self._max_in_flight = limits.in_flight_batches or _IN_FLIGHT_BATCHES
        self._reader, self._maker = reader, BatchMaker(limits)
        self._gathers = limits.max_wait_s > 0
        self._pace = RequestPace(limits.max_wait_s)
        self._status = SinkStatus(name, sink, stats, self._undelivered)
        self._retries = Retries(retry)
        self._settling = Settling(
            name, buffer, self._status, self._retries, self._observers, stream
        )
        self._cursor, self._first_wanted_sequence = buffer.cursor(name), 0
        self._connected_at = float("inf")
        self._pause: trio.CancelScope | None = None
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
                pause = self._retries.pause_after_idle()
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
        self._status.failed()
        if isinstance(error, SinkHolds):
            self._status.note("holding", str(error))
        else:
            throttled = isinstance(error, SinkWaits) and error.throttled
            self._status.note("waiting", str(error), throttled=throttled)
        return self._retries.pause_after(error)

    def _undelivered(self) -> int:
        return self._buffer.end - self._cursor.next_sequence

    async def _attempt(self) -> DeliveryError:
        """Deliver over one connection until it fails; returns the most lasting error."""
        try:
            async with self._sink.session() as session:
                self._connected_at = trio.current_time()
                self._status.opened(quiet=self._retries.failures > 0 and self._undelivered() > 0)
                if self.stream is not None:
                    await self.stream.begin()
                in_flight = InFlight(session, self._max_in_flight, self._reader.share_of)
                try:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._send, in_flight)
                        nursery.start_soon(self._settling.run, in_flight)
                finally:
                    # A pause or a reload repeats nothing that the receiver is known to have.
                    self._settling.settle_confirmed(in_flight)
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
                found: tuple[Batch, SinkMessages] | None
                if waiting is None and self.stream is None:
                    found = await ahead.next()
                else:
                    found = await self._next_before(deadline, ahead)
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
                if waiting is not None and (
                    not (self._gathers and waiting.messages) or self._maker.full(waiting)
                ):
                    await self._hand_over(in_flight, waiting)
                    waiting, deadline = None, float("inf")

    async def _next_before(
        self, deadline: float, ahead: ReadAhead
    ) -> tuple[Batch, SinkMessages] | None:
        """The next stored batch, if there is one before the deadline; None may also come before."""
        if ahead.trickles and self.stream is None:
            now = trio.current_time()
            if ahead.is_at_end and now < deadline:
                await sleep_until(min(deadline, now + _TRICKLE_S))
            return None if ahead.is_at_end else await ahead.next()
        with self._until(deadline):
            return await ahead.next()
        return None

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
            if self._gathers:
                self._pace.note_sent(now)
            if (sequences := batch.sequences) and sequences[0] < self._sent_end:
                batch.sent_before = bisect_left(sequences, self._sent_end)
            if sequences:
                self._sent_end = max(self._sent_end, sequences[-1] + 1)
            try:
                if in_flight.idle:  # the settler does not use the session
                    ticket = await in_flight.session.send(batch.messages)
                else:
                    await in_flight.wait_for_room()
                    async with in_flight.sending:
                        ticket = await in_flight.session.send(batch.messages)
            except BatchRefused as refused:
                ticket = refused
            if self._observers and not batch.seal:
                for observer in self._observers:
                    observer.sent(self._name, batch)
        await self._settling.sent(in_flight, batch, ticket, now)
