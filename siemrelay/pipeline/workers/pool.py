"""A pool of processes that format batches, so that a rush uses more than one core.

A worker holds nothing: one that dies or hangs is replaced, and its batches are formatted again, by
another one or by the relay itself. Workers are started while deliveries stay behind, and ended when
they have had nothing to do for a while: a quiet relay is one process.
"""

from __future__ import annotations

import gc
import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import structlog
import trio

from siemrelay.core.backoff import delay_s
from siemrelay.core.event import Batch
from siemrelay.net.tasks import Broadcast
from siemrelay.pipeline.messages import FormattedBatch
from siemrelay.pipeline.workers.frames import Done, Job, Tables
from siemrelay.pipeline.workers.worker import Worker, WorkerFailed
from siemrelay.telemetry.stats import WorkerStats

_log = structlog.get_logger()

# A start costs 0.4 s of a core: not for a burst that is over by then.
_BEHIND_S: Final = 0.25

# Another one helps only if those that run are busy all the time.
_BUSY_S: Final = 1.0

# Deliveries that are behind no more often than this catch up by themselves.
_GAP_S: Final = 0.5

# When no delivery has been behind for so long, the relay formats alone; its workers end soon.
_CALM_S: Final = 10.0
_IDLE_S: Final = 5.0

# One that it formats and the next one, which waits in its pipe.
_JOBS_EACH: Final = 2

# A batch takes milliseconds, one long record 0.2 s, a start half a second; machines can be busy.
_HANGS_S: Final = 30.0

# A batch that two workers died of is left to the relay.
_ATTEMPTS: Final = 2

# After a worker that failed, and longer after each further one that never got to work.
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0


class PendingBatch:
    """A batch to be formatted, for the filters (by number) that are wanted of each group.

    `finished` is called with the result, or with None: then the caller formats it itself.
    """

    def __init__(
        self, batch: Batch, wanted: Mapping[int, list[int]],
        finished: Callable[[FormattedBatch | None], None],
    ) -> None:  # fmt: skip
        self.job, self.finished, self.attempts = Job(batch, dict(wanted)), finished, 0


class WorkerPool:
    """At most `most` workers. `run` owns them; where it does not run there are none."""

    def __init__(self, stats: WorkerStats, most: int = 0) -> None:
        self._stats, self._most = stats, most
        self._pickle: Callable[[], bytes] = bytes
        self._tables: Tables | None = None
        self._queue: deque[PendingBatch] = deque()
        self._slots: list[_Slot] = []
        self._changed, self._wanted = Broadcast(), trio.Event()
        self._behind_since = self._behind_at = -math.inf
        self._failures, self._pause_until = 0, -math.inf

    def set_most(self, most: int) -> None:
        """Change how many there may be; those above it end."""
        self._most = most
        for slot in self._slots[most:]:
            slot.scope.cancel()

    def set_tables(self, pickle: Callable[[], bytes]) -> None:
        """Format with other tables from now on; batches that no worker has yet are given back.

        `pickle` makes them when a worker needs them: a pickled function that makes a `Formatter`.
        """
        self._pickle, self._tables = pickle, None
        self._give_back([*self._queue])
        self._changed.wake_all()

    @property
    def ready(self) -> bool:
        """Whether there is a worker."""
        return any(slot.ready for slot in self._at_work)

    @property
    def has_room(self) -> bool:
        """Whether one more batch would be formatted soon."""
        slots = self._at_work
        awaited = sum(len(slot.awaited) for slot in slots) + len(self._queue)
        return awaited < _JOBS_EACH * len(slots)

    @property
    def _at_work(self) -> list[_Slot]:
        if trio.current_time() > self._behind_at + _CALM_S:
            return []
        return [slot for slot in self._slots if slot.ready and slot.tables is self._tables]

    def submit(self, pending: PendingBatch) -> None:
        """Have a batch formatted."""
        self._queue.append(pending)
        self._changed.wake_all()

    def note_behind(self) -> None:
        """A delivery has more to format than it has taken: start a worker if that goes on."""
        now = trio.current_time()
        since, self._behind_at = self._behind_at, now
        starting = any(not slot.ready for slot in self._slots)
        if now - since > _GAP_S or starting or (self._slots and self.has_room):
            self._behind_since = now
        patience_s = _BUSY_S if self._slots else _BEHIND_S
        if (
            len(self._slots) < self._most
            and now - self._behind_since >= patience_s
            and now >= self._pause_until
        ):
            self._behind_since = now
            self._wanted.set()

    async def run(self) -> None:
        """Start workers when they are wanted, until cancelled; then all have ended."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._wanted.wait()
                self._wanted = trio.Event()
                nursery.start_soon(self._run_worker)

    async def _run_worker(self) -> None:
        """One worker, from its start to its end."""
        slot, failure = _Slot(), ""
        try:
            with Worker() as worker:
                self._slots.append(slot)
                self._stats.pids.add(worker.pid)
                try:
                    async with trio.open_nursery() as nursery:
                        slot.scope = nursery.cancel_scope
                        nursery.start_soon(self._send, worker, slot)
                        try:
                            await self._receive(worker, slot)
                        except WorkerFailed as error:
                            failure = str(error)
                        nursery.cancel_scope.cancel()
                finally:
                    self._stats.pids.discard(worker.pid)
                    self._slots.remove(slot)
                    self._take_back(slot)
        except OSError as error:
            failure = str(error)
        if failure:
            self._note_failure(failure)

    async def _send(self, worker: Worker, slot: _Slot) -> None:
        while True:
            if self._tables is None:
                self._tables = Tables(self._pickle(), gc.get_threshold()[0])
            if slot.tables is not self._tables:
                slot.tables, slot.ready = self._tables, False
                slot.expect(None)
                await worker.send(self._tables)
            elif self._queue and len(slot.awaited) < _JOBS_EACH:
                pending = self._queue.popleft()
                slot.expect(pending)
                await worker.send(pending.job)
            else:
                await self._changed.wait()

    async def _receive(self, worker: Worker, slot: _Slot) -> None:
        """Take the answers, until the worker has had nothing to do for a while."""
        while True:
            with trio.move_on_at(slot.deadline):
                message = await worker.receive()
                pending = slot.awaited.popleft()
                slot.answered_at = trio.current_time()
                if isinstance(message, Done):
                    assert pending is not None, "answers come in the order of their questions"
                    self._stats.batches += 1
                    self._failures = 0
                    pending.finished(message.formatted)
                else:
                    slot.ready = True
                self._changed.wake_all()
                continue
            if trio.current_time() < slot.deadline:
                continue  # it got work while it was waited for
            if not slot.awaited:
                return
            raise WorkerFailed(f"it has not answered for {_HANGS_S:.0f} s")

    def _take_back(self, slot: _Slot) -> None:
        again = [pending for pending in slot.awaited if pending is not None]
        for pending in reversed(again):
            pending.attempts += 1
            self._queue.appendleft(pending)
        others = self.ready
        self._give_back([p for p in self._queue if p.attempts >= _ATTEMPTS or not others])
        self._changed.wake_all()

    def _give_back(self, batches: Iterable[PendingBatch]) -> None:
        for pending in batches:
            self._queue.remove(pending)
            pending.finished(None)

    def _note_failure(self, reason: str) -> None:
        self._stats.failures += 1
        self._failures += 1
        pause_s = delay_s(self._failures, _FIRST_PAUSE_S, _LONGEST_PAUSE_S, random=random.random)
        self._pause_until = trio.current_time() + pause_s
        _log.warning("a worker failed, its batches are formatted again", reason=reason,
                     pause_s=round(pause_s, 1))  # fmt: skip


class _Slot:
    """What the pool knows of one worker; `awaited` has its questions, None for tables."""

    def __init__(self) -> None:
        self.tables: Tables | None = None
        self.ready = False
        self.scope = trio.CancelScope()
        self.awaited: deque[PendingBatch | None] = deque()
        self.answered_at = trio.current_time()

    def expect(self, pending: PendingBatch | None) -> None:
        """Note a question."""
        if not self.awaited:
            self.answered_at = trio.current_time()
        self.awaited.append(pending)

    @property
    def deadline(self) -> float:
        """When the worker hangs, or has had nothing to do for too long."""
        return self.answered_at + (_HANGS_S if self.awaited else _IDLE_S)
