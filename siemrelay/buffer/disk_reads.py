"""Reads stored batches back from disk, once for all sinks that are behind at about one place."""

from __future__ import annotations

from typing import Final
from weakref import WeakValueDictionary

from siemrelay.buffer.sqlite.store import Store
from siemrelay.buffer.threads import in_thread
from siemrelay.core.event import Batch
from siemrelay.net.tasks import Mutex

READ_BYTES: Final = 1024 * 1024
"""A sink behind reads this much at a time: one thread hop for a few batches."""


class DiskReads:
    """One read at a time; what a sink has read and still holds, the others take from it."""

    def __init__(self, store: Store) -> None:
        self._store, self._reading = store, Mutex()
        # As long as a sink formats them or another part of the relay has them.
        self._held = WeakValueDictionary[int, Batch]()

    async def read(self, sequence: int, before: int) -> list[Batch]:
        """See `Store.read`."""
        async with self._reading:
            if (held := self._held.get(sequence)) is not None:
                return [held]
            found = await in_thread(self._store.read, sequence, before, READ_BYTES)
            self._held.update((batch.first_sequence, batch) for batch in found)
            return found
