"""The newest stored batches, in memory: sinks near the end do not read from disk."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from operator import attrgetter
from typing import Final

import trio

from siemrelay.core.event import Batch
from siemrelay.net.tasks import Broadcast

KEPT_BYTES: Final = 8 * 1024 * 1024
"""Sixteen batches of a busy file source, more than two commits of a rush: while one is stored, what
the one before it has brought is formatted."""

# A larger commit comes from a source that reads a backlog. Senders that wait for an answer hand
# over less at a time, and are not throttled.
_CATCHING_UP_BYTES: Final = 1024 * 1024

# A budget for waiting: it starts at this, waiting spends it, and what a sink takes refills it as if
# the sink read at this pace. So intake waits for a sink that has just connected, and not for one
# that is always slower: that sink falls behind these batches, and intake no longer waits for it.
_PATIENCE_S: Final = 0.3
_PACE_BYTES_PER_S: Final = 80_000_000

_first = attrgetter("first_sequence")


class RecentBatches:
    """The newest batches, bounded in bytes; at least the very newest."""

    def __init__(self, end: int, kept_bytes: int = KEPT_BYTES) -> None:
        """The first batch begins at `end`; batches of up to `kept_bytes` are kept."""
        self._batches: deque[Batch] = deque()
        self._bytes, self._kept_bytes = 0, kept_bytes
        # No sink has taken a record at or after this.
        self._taken_end, self._taken = end, Broadcast()
        self._patience_s = _PATIENCE_S

    def add(self, batch: Batch) -> None:
        """Add the batch that follows the newest."""
        self._batches.append(batch)
        self._bytes += len(batch.payload)
        while self._bytes > self._kept_bytes and len(self._batches) > 1:
            self._bytes -= len(self._batches.popleft().payload)

    def take(self, sequence: int) -> Batch | None:
        """The batch that holds `sequence`, which is below the end; None if all here are newer."""
        if not self._batches or self._batches[0].first_sequence > sequence:
            return None
        batch = self._batches[-1]
        if batch.first_sequence > sequence:
            batch = self._batches[bisect_right(self._batches, sequence, key=_first) - 1]
        if batch.next_sequence > self._taken_end:
            self._taken_end = batch.next_sequence
            more_s = len(batch.payload) / _PACE_BYTES_PER_S
            self._patience_s = min(self._patience_s + more_s, _PATIENCE_S)
            self._taken.wake_all()
        return batch

    async def throttle(self, more_bytes: int) -> None:
        """Before `more_bytes` are added, let the fastest sink take what they would displace.

        A source that reads a backlog is faster than most sinks, which would then read everything
        back from disk and decompress it. While the fastest sink is that far behind, every sink has
        work, so the pause slows none of them.
        """
        if more_bytes < _CATCHING_UP_BYTES:
            return
        leaving, started = self._leaving(more_bytes), trio.current_time()
        with trio.move_on_after(self._patience_s):
            while self._taken_end in leaving:
                await self._taken.wait()
        self._patience_s = max(self._patience_s - (trio.current_time() - started), 0.0)

    def _leaving(self, more_bytes: int) -> range:
        """The sequence numbers that `more_bytes` would displace."""
        over = self._bytes + more_bytes - self._kept_bytes
        first = end = self._batches[0].first_sequence if self._batches else 0
        for batch in self._batches:
            if over <= 0:
                break
            over, end = over - len(batch.payload), batch.next_sequence
        return range(first, end)
