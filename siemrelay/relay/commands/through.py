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

_UNSTORED: Final = "the event is not stored: intake waits for room in the buffer"


class Followed:
    """Implements `pipeline.observer.Observer`: finds one of the relay's own events by its id."""

    def __init__(self, event_id: str) -> None:
        self._id = event_id.encode()
        self.sequence: int | None = None
        self.outcomes: dict[str, str] = {}
        """What the receiver made of the event, by sink; empty: it took it."""

    def stored(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            if batch.source == OWN_SOURCE and self._id in batch.payload:
                records = batch.records()
                at = next(i for i, record in enumerate(records) if self._id in record)
                self.sequence = batch.first_sequence + at

    def sent(self, sink: str, batch: DeliveryBatch) -> None:
        pass

    def settled(self, sink: str, batch: DeliveryBatch, refusals: Settlement) -> None:
        if self.sequence in batch.sequences:
            at = batch.sequences.index(self.sequence)
            refused = [
                f"{r.code} {r.reason}" for r in refusals if r.index == at and not r.duplicate
            ]
            self.outcomes[sink] = refused[0] if refused else ""


async def follow(
    event_id: str, record: bytes, sinks: Sequence[SinkStats], own: OwnEvents, buffer: DiskBuffer,
    followed: Followed, emit: Emit, timeout_s: float,
) -> bool:  # fmt: skip
    """Store the event and emit a line for each sink; whether every sink took it or filters it out.

    `followed` must observe already. After `timeout_s` the sinks that have not settled the event get
    a line that says why; the event stays in the buffer for them.
    """
    began = trio.current_time()
    settled: dict[str, bool] = {}
    dropped = {sink.name: sink.counts.dropped for sink in sinks}

    async def wait_for(sink: SinkStats) -> None:
        assert followed.sequence is not None
        await buffer.wait_passed([sink.name], followed.sequence + 1)
        if sink.state in ("disabled", "paused"):
            settled[sink.name] = sink.state == "disabled"
            await emit(TestLine(sink.name, sink.state, sink.reason))
            return
        outcome = followed.outcomes.get(sink.name)
        if outcome is None and sink.counts.dropped > dropped[sink.name]:
            settled[sink.name] = False
            await emit(TestLine(sink.name, "dropped", "the buffer is full"))
        elif outcome is None:
            settled[sink.name] = True
            await emit(TestLine(sink.name, "filtered", "its `events` leave the test event out"))
        elif outcome:
            settled[sink.name] = False
            await emit(TestLine(sink.name, "refused", f"{outcome}; kept as a dead letter"))
        else:
            settled[sink.name] = True
            took_s = trio.current_time() - began
            await emit(TestLine(sink.name, "delivered", f"confirmed after {took_s:.3f} s"))

    with trio.move_on_after(timeout_s):
        await own.store(record)
        async with trio.open_nursery() as nursery:
            for sink in sinks:
                nursery.start_soon(wait_for, sink)
    for sink in sinks:
        if sink.name not in settled:
            await emit(TestLine(sink.name, "no confirmation", _why(sink, followed, buffer)))
    return all(settled.get(sink.name, False) for sink in sinks)


def _why(sink: SinkStats, followed: Followed, buffer: DiskBuffer) -> str:
    if followed.sequence is None:
        return _UNSTORED
    before = followed.sequence - buffer.cursor(sink.name).next_sequence
    why = f"{sink.state}: {sink.reason}" if sink.reason else f"the sink is {sink.state}"
    return f"{why}; {max(before, 0):,} records are before it; the event stays in the buffer"
