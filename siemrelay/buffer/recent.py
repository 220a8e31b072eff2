"""What was stored last, in memory, for the sinks that are near the end."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from operator import attrgetter
from typing import Final

import trio

from siemrelay.core.event import Batch
from siemrelay.net.tasks import Broadcast

KEPT_BYTES: Final = 4 * 1024 * 1024
"""Eight batches of a busy file source."""

# A commit of so much is one of an intake that catches up; senders who wait for an answer hand over
# less at a time.
_CATCHING_UP_BYTES: Final = 1024 * 1024

# So long may such commits wait, and again as long as what a sink takes would take at this pace: one
# that has just connected is waited for, one that is slow all the time does not set the pace of
# intake. It is then behind what is kept here, and is not waited for any more.
_PATIENCE_S: Final = 0.3
_PACE_BYTES_PER_S: Final = 80_000_000

_first = attrgetter("first_sequence")


class RecentBatches:
    """The newest batches, bounded in bytes; at least the very newest."""

    def __init__(self, end: int, kept_bytes: int = KEPT_BYTES) -> None:
        """What is added begins at `end`; up to `kept_bytes` of records are kept."""
        self._batches: deque[Batch] = deque()
        self._bytes, self._kept_bytes = 0, kept_bytes
        # No sink has taken a record from here on.
        self._taken_end, self._taken = end, Broadcast()
        self._patience_s = _PATIENCE_S

    def add(self, batch: Batch) -> None:
        """Keep the batch that follows all others."""
        self._batches.append(batch)
        self._bytes += len(batch.payload)
        while self._bytes > self._kept_bytes and len(self._batches) > 1:
            self._bytes -= len(self._batches.popleft().payload)

    def take(self, sequence: int) -> Batch | None:
        """The batch that holds a sequence number before the end; None if it is older than all."""
        if not self._batches or self._batches[0].first_sequence > sequence:
            return None
        batch = self._batches[bisect_right(self._batches, sequence, key=_first) - 1]
        if batch.next_sequence > self._taken_end:
            self._taken_end = batch.next_sequence
            more_s = len(batch.payload) / _PACE_BYTES_PER_S
            self._patience_s = min(self._patience_s + more_s, _PATIENCE_S)
            self._taken.wake_all()
        return batch

    async def throttle(self, more_bytes: int) -> None:
        """Before so much more is added: let the foremost sink take what it would push out.

        An intake that catches up is faster than most sinks; all of it would be read back from disk
        and unpacked. While even the foremost sink is that far behind, every sink has work, so that
        the pause slows none of them; one that is merely slower than others is not waited for.
        """
        if more_bytes < _CATCHING_UP_BYTES:
            return
        leaving, started = self._leaving(more_bytes), trio.current_time()
        with trio.move_on_after(self._patience_s):
            while self._taken_end in leaving:
                await self._taken.wait()
        self._patience_s = max(self._patience_s - (trio.current_time() - started), 0.0)

    def _leaving(self, more_bytes: int) -> range:
        """The sequence numbers that so many bytes more would push out."""
        over = self._bytes + more_bytes - self._kept_bytes
        first = end = self._batches[0].first_sequence if self._batches else 0
        for batch in self._batches:
            if over <= 0:
                break
            over, end = over - len(batch.payload), batch.next_sequence
        return range(first, end)
