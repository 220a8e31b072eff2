"""A pool of processes that format batches, so that a rush uses more than one core.

Deliveries that stay behind begin a rush: workers are started while there is more to do than those
that run can take. When no delivery has been behind for a while the rush is over, and all of them
end: a quiet relay is one process. A worker holds nothing: one that dies or hangs is replaced, and
its batches are formatted again, by another one or by the relay itself.
"""

from __future__ import annotations

import gc
import math
import random
from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

import structlog
import trio

from siemrelay.core.backoff import delay_s
from siemrelay.core.event import Batch
from siemrelay.pipeline.formatting.messages import FormattedBatch
from siemrelay.pipeline.workers.frames import Job, Tables
from siemrelay.pipeline.workers.shared_memory import SLOTS
from siemrelay.pipeline.workers.worker import Worker, WorkerFailed
from siemrelay.telemetry.stats import WorkerStats

_log = structlog.get_logger()

# A start costs 0.1 s of a core: not for a burst that is over by then. Earlier ones gained nothing.
_BEHIND_S: Final = 0.25

# Another one helps only if those that run are busy all the time: for so long they have waited for
# batches at most this share of it. Whether one has room does not tell: a worker that has just
# answered has room, and one whose answers are not read yet has none.
_BUSY_S: Final = 1.0
_WAITED: Final = 0.1

# Deliveries that are behind no more often than this catch up by themselves.
_GAP_S: Final = 0.5

# When no delivery has been behind for so long, the relay formats alone.
_CALM_S: Final = 10.0

# A batch that two workers died of is left to the relay.
_ATTEMPTS: Final = 2

# Until a worker that failed is replaced; longer after each further one that never got to work.
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
        self._tables: Callable[[], Tables]
        self._started = self._failures = 0
        self.at_work = 0
        """How many format now or wait for something to format."""
        self._rush, self._wanted = trio.CancelScope(), trio.Event()
        self._shortage = _Shortage(-math.inf)
        # Without a buffer: a batch goes to a worker that waits for one.
        self._jobs, self._takers = trio.open_memory_channel[PendingBatch](0)

    def set_most(self, most: int) -> None:
        """Change how many there may be. If there are more, all end, and start again if needed."""
        self._most = most
        if self._started > most:
            self._rush.cancel()

    def set_tables(self, pickle: Callable[[], bytes]) -> None:
        """Format with other tables from now on.

        `pickle` makes them when a worker needs them: a pickled function that makes a `Formatter`.
        """
        self._tables = cache(lambda: Tables(pickle(), gc.get_threshold()[0]))

    @property
    def has_room(self) -> bool:
        """Whether a worker takes one more batch now."""
        return self._started > 0 and self._takers.statistics().tasks_waiting_receive > 0

    def submit(self, pending: PendingBatch) -> None:
        """Have a batch formatted; only while the pool has room."""
        self._jobs.send_nowait(pending)

    def note_behind(self) -> None:
        """A delivery has more to format than it has taken: start a worker if that goes on."""
        now = trio.current_time()
        self._rush.deadline = now + _CALM_S
        one_starts = self._started > self.at_work
        if one_starts or now - self._shortage.noted_at > _GAP_S:
            self._shortage = _Shortage(now)
        shortage = self._shortage
        shortage.noted_at, lasts_s = now, now - shortage.began_at
        if one_starts or lasts_s < (_BUSY_S if self._started else _BEHIND_S):
            return
        if self._started < self._most and shortage.waited_s <= _WAITED * lasts_s * self._started:
            self._wanted.set()
        self._shortage = _Shortage(now)

    async def run(self) -> None:
        """Start workers when they are wanted, until cancelled; then all have ended."""
        while True:
            await self._wanted.wait()
            with trio.CancelScope(deadline=trio.current_time() + _CALM_S) as self._rush:
                async with trio.open_nursery() as workers:
                    while True:
                        await self._wanted.wait()
                        self._wanted = trio.Event()
                        self._started += 1
                        workers.start_soon(self._run_worker)

    async def _run_worker(self) -> None:
        """One worker from its start to its end, and the pause after a failure."""
        taken: list[PendingBatch] = []
        pause_s = 0.0
        try:
            try:
                await self._feed_worker(taken)
            except* (WorkerFailed, OSError) as failed:
                pause_s = self._note_failure(failed.exceptions[0])
            finally:
                for pending in taken:
                    self._submit_again(pending)
            await trio.sleep(pause_s)
        finally:
            self._started -= 1

    async def _feed_worker(self, taken: list[PendingBatch]) -> None:
        """Start a worker and give it batches for ever; `taken` are those that it has."""
        with Worker() as worker:
            self._stats.pids.add(worker.pid)
            try:
                await worker.prepare(self._tables())
                self.at_work += 1
                try:
                    async with trio.open_nursery() as nursery:
                        for _ in range(SLOTS):
                            nursery.start_soon(self._feed, worker, taken)
                finally:
                    self.at_work -= 1
            finally:
                self._stats.pids.discard(worker.pid)

    async def _feed(self, worker: Worker, taken: list[PendingBatch]) -> None:
        while True:
            pending = await self._takers.receive()
            taken.append(pending)
            answer = await worker.format(self._tables(), pending.job)
            taken.remove(pending)
            self._shortage.note_waited(answer.waited_s)
            self._stats.batches += 1
            self._failures = 0
            pending.finished(answer.formatted)

    def _submit_again(self, pending: PendingBatch) -> None:
        pending.attempts += 1
        if pending.attempts < _ATTEMPTS and self.has_room:
            self.submit(pending)
        else:
            pending.finished(None)

    def _note_failure(self, error: Exception) -> float:
        """How many seconds to wait before another worker takes its place."""
        self._stats.failures += 1
        self._failures += 1
        pause_s = delay_s(self._failures, _FIRST_PAUSE_S, _LONGEST_PAUSE_S, random=random.random)
        _log.warning("a worker failed, its batches are formatted again", reason=str(error),
                     retry_in_s=round(pause_s, 1))  # fmt: skip
        return pause_s


class _Shortage:
    """A time in which deliveries were behind, and for how long workers had no batch in it."""

    def __init__(self, now: float) -> None:
        self.began_at = self.noted_at = now
        self.waited_s = 0.0

    def note_waited(self, waited_s: float) -> None:
        """A worker that answers now had waited so long; what was before this time is left out."""
        self.waited_s += min(waited_s, trio.current_time() - self.began_at)
