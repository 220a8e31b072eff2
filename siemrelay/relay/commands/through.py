"""`siemrelay test --through`: a test event on its whole way, followed to every confirmation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import trio

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.core.event import Batch
from siemrelay.core.event_types import OWN_SOURCE
from siemrelay.pipeline.batching import DeliveryBatch
from siemrelay.relay.control import Emit, TestLine
from siemrelay.relay.own_events import OwnEvents
from siemrelay.sinks.contract import Settlement
from siemrelay.telemetry.stats import SinkStats

_FINE: Final = ("delivered", "filtered", "disabled")
_UNSTORED: Final = "the event is not stored: intake waits for room in the buffer"


class Followed:
    """Implements `pipeline.observer.Observer`: finds one of the relay's own events by its id."""

    def __init__(self, event_id: str) -> None:
        self._id = event_id.encode()
        self.sequence: int | None = None
        self.outcomes: dict[str, str] = {}
        """Why the receiver refused the event, by sink; empty: it took it."""

    def stored(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            if batch.source == OWN_SOURCE and self._id in batch.payload:
                records = batch.records()
                at = next(i for i, record in enumerate(records) if self._id in record)
                self.sequence = batch.first_sequence + at

    def sent(self, sink: str, batch: DeliveryBatch) -> None:
        pass

    def settled(self, sink: str, batch: DeliveryBatch, refusals: Settlement) -> None:
        for sequence, error in batch.failed:
            if sequence == self.sequence:
                self.outcomes[sink] = f"internal error: {error}"
        if self.sequence in batch.sequences:
            at = batch.sequences.index(self.sequence)
            refused = [
                f"{r.code} {r.reason}" for r in refusals if r.index == at and not r.duplicate
            ]
            self.outcomes[sink] = refused[0] if refused else ""


async def follow(
    record: bytes, sinks: Sequence[SinkStats], own: OwnEvents, buffer: DiskBuffer,
    followed: Followed, emit: Emit, timeout_s: float,
) -> bool:  # fmt: skip
    """Store the event and emit a line for each sink; whether every sink took it or filters it out.

    `followed` must observe already. After `timeout_s` the sinks that have not settled the event get
    a line that says why; the event stays in the buffer for them.
    """
    began = trio.current_time()
    dropped = {sink.name: sink.counts.dropped for sink in sinks}
    found, lines = trio.open_memory_channel[TestLine](len(sinks))

    async def wait_for(sink: SinkStats) -> None:
        assert followed.sequence is not None
        await buffer.wait_passed([sink.name], followed.sequence + 1)
        outcome = followed.outcomes.get(sink.name)
        if outcome is not None:
            took_s = trio.current_time() - began
            line = (
                TestLine(sink.name, "refused", f"{outcome}; kept as a dead letter") if outcome
                else TestLine(sink.name, "delivered", f"confirmed after {took_s:.3f} s")
            )  # fmt: skip
        elif sink.state in ("disabled", "paused"):
            line = TestLine(sink.name, sink.state, sink.reason)
        elif sink.counts.dropped > dropped[sink.name]:
            line = TestLine(sink.name, "dropped", "the buffer is full")
        else:
            line = TestLine(sink.name, "filtered", "its `events` leave the test event out")
        found.send_nowait(line)

    async def store_and_wait() -> None:
        with found, trio.move_on_after(timeout_s):
            await own.store(record)
            async with trio.open_nursery() as waiting:
                for sink in sinks:
                    waiting.start_soon(wait_for, sink)

    outcomes: dict[str, str] = {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store_and_wait)
        # Beside the time limit, which must not cut a line.
        async for line in lines:
            outcomes[line.sink] = line.outcome
            await emit(line)
    for sink in sinks:
        if sink.name not in outcomes:
            await emit(TestLine(sink.name, "no confirmation", _why(sink, followed, buffer)))
    return all(outcomes.get(sink.name) in _FINE for sink in sinks)


def _why(sink: SinkStats, followed: Followed, buffer: DiskBuffer) -> str:
    if followed.sequence is None:
        return _UNSTORED
    if (cursor := buffer.find_cursor(sink.name)) is None:
        return "a reload has removed the sink"
    before = followed.sequence - cursor.next_sequence
    why = f"{sink.state}: {sink.reason}" if sink.reason else f"the sink is {sink.state}"
    return f"{why}; {max(before, 0):,} records are before it; the event stays in the buffer"
