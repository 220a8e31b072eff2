"""Reads a sink's batches in order; some ahead, where workers can format them meanwhile."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final

from siemrelay.buffer.contract import Deliverable
from siemrelay.core.event import Batch
from siemrelay.pipeline.format_cache import WORTH_BYTES, SinkReader
from siemrelay.pipeline.formatting.messages import SinkMessages

# Enough for a few workers, and for as long as a commit takes: eight batches of a busy source. Where
# many sinks read from disk, each has batches of its own, so they share a budget.
_AHEAD_BYTES: Final = 4 * 1024 * 1024
_ALL_SINKS_BYTES: Final = 8 * 1024 * 1024

# Batches that are looked at, whether a worker should have them. A backlog of lone records may be
# thousands of batches, and each would be looked at again for every one before it.
_PREPARED: Final = 64

# A delivery with more than this to go is behind; less comes in while a batch is sent.
_BEHIND_BYTES: Final = 1024 * 1024


class ReadAhead:
    """The stored batches from a position on, each with the sink's messages."""

    def __init__(self, buffer: Deliverable, reader: SinkReader, position: int) -> None:
        self._buffer, self._reader = buffer, reader
        self._queue: deque[Batch] = deque()
        self._queued_bytes = 0
        self._end = position
        self.trickles = False
        """Whether the last batch was small: more of its kind can wait for each other."""

    @property
    def is_at_end(self) -> bool:
        """Whether nothing is stored that has not been read."""
        return not self._queue and self._end >= self._buffer.end

    async def next(self) -> tuple[Batch, SinkMessages]:
        """The next batch; waits until there is one. If cancelled, the next call goes on."""
        while not self._queue or (
            self._end < self._buffer.end
            and self._reader.reads_ahead
            and self._queued_bytes < min(_AHEAD_BYTES, self._reader.share_of(_ALL_SINKS_BYTES))
        ):
            for batch in await self._buffer.read(self._end):
                if batch.next_sequence > self._end:
                    self._queue.append(batch)
                    self._queued_bytes += len(batch.payload)
                    self._end = batch.next_sequence
        if len(self._queue) > 1 or len(self._queue[0].payload) >= WORTH_BYTES:
            next_ones = [*islice(self._queue, _PREPARED)]
            self._reader.prepare(next_ones, behind=self._is_behind())
        found = await self._reader.messages(self._queue[0], self._queue)
        stored = self._queue.popleft()
        self._queued_bytes -= len(stored.payload)
        self.trickles = len(stored.payload) < WORTH_BYTES
        return stored, found

    def _is_behind(self) -> bool:
        last = self._queue[-1]
        unread = self._buffer.end - self._end
        return unread * len(last.payload) > _BEHIND_BYTES * last.count
