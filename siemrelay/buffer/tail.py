"""What was stored last, in memory, for the sinks that are near the end."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from operator import attrgetter
from typing import Final

from siemrelay.event import Batch

# 4 batches of a busy file source.
_KEPT_BYTES: Final = 4 * 1024 * 1024

_first = attrgetter("first_sequence")


class Tail:
    """The newest batches, bounded in bytes; at least the very newest."""

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        self._bytes = 0

    def add(self, batch: Batch) -> None:
        """Keep the batch that follows all others."""
        self._batches.append(batch)
        self._bytes += len(batch.payload)
        while self._bytes > _KEPT_BYTES and len(self._batches) > 1:
            self._bytes -= len(self._batches.popleft().payload)

    def find(self, sequence: int) -> Batch | None:
        """The batch that holds a sequence number before the end; None if it is older than all."""
        if not self._batches or self._batches[0].first_sequence > sequence:
            return None
        return self._batches[bisect_right(self._batches, sequence, key=_first) - 1]

    def clear(self) -> None:
        """Forget all of it."""
        self._batches.clear()
        self._bytes = 0
