"""From the buffer to one sink: send runs in order, settle them in order, move the cursor.

Two tasks per connection. The sender fills runs and hands them to the session; the settler waits for
the peer's confirmation of each and moves the cursor past it. When either fails, both end, and the
next attempt starts from the cursor: what was not settled is sent again.

Invariants, checked in test_delivery.py:
- the cursor passes a record only when it was filtered out, confirmed or made a dead letter;
- messages leave in sequence order.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Any, Final

import structlog
import trio

from siemrelay.buffer.disk import DiskBuffer
from siemrelay.buffer.store import DeadLetter
from siemrelay.errors import BufferFull, DeliveryError, RunRefused, SinkHolds, SinkWaits
from siemrelay.retry import HOLD_PROBE_S, delay_s
from siemrelay.runs import Run, RunMaker
from siemrelay.sinks.contract import Refusal, RunLimits, Session, Settlement, Sink
from siemrelay.stats import SinkStats

_log = structlog.get_logger()

# Runs sent and not settled: enough to hide a round trip on a busy stream, few enough that little is
# sent twice after a break.
_IN_FLIGHT_RUNS: Final = 4

# When the peer refuses so many different events and takes none, it is not the events.
_ALL_REFUSED: Final = 10


@dataclass(frozen=True, slots=True)
class Retry:
    """The pauses between attempts, in seconds."""

    initial_s: float
    max_s: float


class Delivery:
    """One sink's loop. `run` never returns and never gives up."""

    def __init__(
        self, name: str, sink: Sink, maker: RunMaker, limits: RunLimits, buffer: DiskBuffer,
        stats: SinkStats, retry: Retry,
    ) -> None:  # fmt: skip
        self._name, self._sink, self._maker = name, sink, maker
        self._max_wait_s = limits.max_wait_s
        self._buffer, self._stats, self._retry = buffer, stats, retry
        self._place = buffer.place(name)
        self._failures = 0
        self._logged_state = ""

    async def run(self) -> None:
        """Deliver for ever. Cancelling closes the connection; the cursor stays where it was."""
        while True:
            error = await self._attempt()
            self._failures += 1
            self._stats.retries += 1
            if isinstance(error, SinkHolds):
                self._set_state("holding", str(error))
                pause = HOLD_PROBE_S
            else:
                self._set_state("waiting", str(error))
                pause = delay_s(self._failures, self._retry.initial_s, self._retry.max_s,
                                random=random.random)  # fmt: skip
                asked = error.after_s if isinstance(error, SinkWaits) else None
                pause = max(pause, min(asked or 0.0, HOLD_PROBE_S))
            await trio.sleep(pause)

    def failed(self, error: BaseException) -> None:
        """Note that `run` ended by an error of our own; it is about to be run again."""
        self._stats.retries += 1
        self._set_state("waiting", f"internal error: {error or type(error).__name__}")

    async def _attempt(self) -> DeliveryError:
        """One connection, until it fails; returns what the failure asks for."""
        try:
            async with self._sink.session() as session:
                if not self._failures or self._place.next_sequence == self._buffer.end:
                    self._set_state("up")
                sent, settling = trio.open_memory_channel[tuple[Run, Any]](_IN_FLIGHT_RUNS)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send, session, sent)
                    nursery.start_soon(self._settle, session, settling)
        except DeliveryError as error:
            return error
        except BaseExceptionGroup as group:
            found, rest = group.split(DeliveryError)
            if found is None or rest is not None:
                raise
            return min(_leaves(found), key=lambda error: not isinstance(error, SinkHolds))
        raise AssertionError("a delivery attempt ends by an error only")

    # -- sending ----------------------------------------------------------

    async def _send(
        self, session: Session, sent: trio.MemorySendChannel[tuple[Run, Any]]
    ) -> None:
        position = self._place.next_sequence
        waiting: Run | None = None
        deadline = float("inf")
        while True:
            batches = None
            with trio.move_on_at(deadline):
                batches = await self._buffer.read(position)
            if batches is None:
                assert waiting is not None
                await self._hand_over(session, sent, waiting)
                waiting, deadline = None, float("inf")
                continue
            for batch in batches:
                if batch.next_sequence <= position:
                    continue
                for run in self._maker.runs(batch, position):
                    if waiting is not None and self._maker.join(waiting, run):
                        continue
                    if waiting is not None:
                        await self._hand_over(session, sent, waiting)
                    waiting, deadline = run, trio.current_time() + self._max_wait_s
                position = batch.next_sequence
            if waiting is not None and (not waiting.messages or self._maker.full(waiting)):
                await self._hand_over(session, sent, waiting)
                waiting, deadline = None, float("inf")

    async def _hand_over(
        self, session: Session, sent: trio.MemorySendChannel[tuple[Run, Any]], run: Run
    ) -> None:
        self._stats.progress_at = trio.current_time()
        if not run.messages:
            await sent.send((run, None))
            return
        try:
            ticket = await session.send(run.messages)
        except RunRefused as refused:
            found = _Isolated([])
            await self._isolate(session, run, 0, len(run.messages), refused, found)
            await sent.send((run, found.refusals))
        else:
            await sent.send((run, _Ticket(ticket)))

    async def _isolate(
        self, session: Session, run: Run, start: int, end: int, why: RunRefused, found: _Isolated
    ) -> None:
        """Halve the refused messages from `start` to `end` until each culprit stands alone.

        What the peer takes on the way is settled, so the rest of a refused run is delivered.
        """
        if end - start == 1:
            found.refusals.append(Refusal(start, why.code, why.reason))
            if not found.taken and len(found.refusals) >= _ALL_REFUSED:
                raise SinkHolds(
                    f"the peer refused each of {_ALL_REFUSED} events: {why.code} {why.reason}",
                    advice="check `format` and the address: it seems to expect something else",
                )
            return
        middle = (start + end) // 2
        for low, high in ((start, middle), (middle, end)):
            try:
                ticket = await session.send(run.messages[low:high])
                settlement = await session.confirm(ticket)
            except RunRefused as again:
                await self._isolate(session, run, low, high, again, found)
            else:
                found.refusals += [Refusal(low + r.index, r.code, r.reason) for r in settlement]
                found.taken += high - low

    # -- settling ---------------------------------------------------------

    async def _settle(
        self, session: Session, settling: trio.MemoryReceiveChannel[tuple[Run, Any]]
    ) -> None:
        async for run, ticket in settling:
            refusals: Settlement = ticket or ()
            if isinstance(ticket, _Ticket):
                refusals = await session.confirm(ticket.inner)
            if refusals:
                await self._bury(run, refusals)
            else:
                self._buffer.advance(self._name, run.next_sequence)
            self._count(run, len(refusals))

    def _count(self, run: Run, refused: int) -> None:
        stats, now = self._stats, time.time()
        stats.filtered += run.filtered
        stats.delivered += len(run.messages) - refused
        stats.dead_lettered += refused
        stats.unparsed += run.unparsed
        stats.progress_at = trio.current_time()
        if run.messages:
            self._failures = 0
            self._set_state("up")
            stats.sent_bytes += sum(map(len, run.messages))
            stats.last_success_at, stats.last_type = now, run.last_type
            left = len(run.messages) - refused  # what was refused was not delivered in any time
            for received_at, count in run.received:
                stats.delivery_s.observe(max(now - received_at, 0.0), min(count, left))
                left -= min(count, left)

    async def _bury(self, run: Run, refusals: Settlement) -> None:
        letters = []
        for refusal in refusals:
            sequence = run.sequences[refusal.index]
            found = await self._buffer.read(sequence)
            batch = found[0]
            index = sequence - batch.first_sequence
            record = batch.records()[index] if 0 <= index < batch.count else b""
            letters.append(
                DeadLetter(self._name, sequence, time.time(), refusal.code, refusal.reason, record,
                           run.messages[refusal.index])
            )  # fmt: skip
        try:
            await self._buffer.bury(letters, run.next_sequence)
        except BufferFull as error:
            raise SinkWaits(f"refused events cannot be kept: {error}") from error
        first = letters[0]
        _log.warning(
            "events refused by the peer", sink=self._name, events=len(letters),
            first_sequence=first.sequence, code=first.code, reason=first.reason,
            kept="as dead letters in the buffer",
        )  # fmt: skip

    def _set_state(self, state: str, reason: str = "") -> None:
        stats = self._stats
        if (stats.state, stats.reason) == (state, reason):
            return
        # Not against `stats.state`: a sink begins as waiting, and that its first attempt failed is news.
        if self._logged_state != state or state == "holding":
            self._logged_state = state
            log = {"up": _log.info, "waiting": _log.warning}.get(state, _log.error)
            log(f"sink {state}", sink=self._name, **({"reason": reason} if reason else {}),
                undelivered=self._buffer.end - self._place.next_sequence)  # fmt: skip
        if stats.state != state:
            stats.since = time.time()
        stats.state, stats.reason = state, reason


@dataclass(frozen=True, slots=True)
class _Ticket:
    """A session's ticket, told apart from refusals that are settled already."""

    inner: Any


@dataclass(slots=True)
class _Isolated:
    """What halving has found: who is refused, and how many the peer took meanwhile."""

    refusals: list[Refusal]
    taken: int = 0


def _leaves(group: BaseExceptionGroup[DeliveryError]) -> list[DeliveryError]:
    found: list[DeliveryError] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
