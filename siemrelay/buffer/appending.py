"""Appends records to the buffer: one commit after the other, each on disk before it counts."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, Final

import trio

from siemrelay.buffer.cursor_flusher import WITH_RECORDS_S
from siemrelay.buffer.cursors import KeptRange, SinkCursors
from siemrelay.buffer.recent import RecentBatches
from siemrelay.buffer.reserve import EmergencyReserve
from siemrelay.buffer.rows import StoredCursor
from siemrelay.buffer.sqlite.store import Store
from siemrelay.buffer.threads import WriterThread, event_descriptor
from siemrelay.buffer.watermark import HighWatermark
from siemrelay.core.errors import DiskFull
from siemrelay.core.event import Batch
from siemrelay.net.tasks import Broadcast, Mutex
from siemrelay.telemetry.stats import BufferStats

Positions = Mapping[tuple[str, str], Mapping[str, Any] | None]
"""Where sources have read to, by source and key; None forgets a key."""

_NO_CURSORS: Final[Mapping[str, StoredCursor]] = {}


class Appending:
    """Stores records, their sources' positions and moved cursors in one transaction, fsynced.

    `append` does so at any time. A committer, of which there is one, spares a lone record a round
    of the scheduler: while it waits in `wait`, whoever has records calls `begin` for it, and once
    the commit has returned it calls `end`.
    """

    def __init__(
        self, store: Store, writing: Mutex, writer: WriterThread, cursors: SinkCursors,
        kept: KeptRange, recent: RecentBatches, reserve: EmergencyReserve,
        watermark: HighWatermark, stats: BufferStats,
    ) -> None:  # fmt: skip
        self._store, self._writing, self._writer, self._cursors = store, writing, writer, cursors
        self._kept, self._recent, self._reserve = kept, recent, reserve
        self._watermark, self.stats = watermark, stats
        self._ended = -1
        self._batches: list[Batch] = []
        self._with_cursors = _NO_CURSORS
        self._began_at = 0.0
        self.under_way = False
        """Whether something has begun that `end` has not ended."""
        self.grown = Broadcast()
        """Wakes the tasks that wait for records at the end."""

    async def append(
        self, batches: list[Batch], positions: Positions, filtered: Mapping[str, int]
    ) -> None:
        """As `begin`, waiting for whatever is to be waited for; all is on disk at return.

        A commit that has begun is waited for when cancelled. Raises as `end`.
        """
        await self._recent.throttle(sum(len(batch.payload) for batch in batches))
        async with self._writing:
            began_at, cursors = time.perf_counter(), self._due_cursors()
            try:
                used = await self._writer.run(self._append, batches, positions, cursors, filtered)
            except BaseException:
                self._cursors.put_back(cursors)
                raise
        self._note_stored(batches, used, began_at)

    def begin(
        self, batches: list[Batch], positions: Positions, filtered: Mapping[str, int]
    ) -> bool:
        """Begin to store these if nothing else is being written; whether it has begun.

        `batches` continue at the buffer's end; `filtered` counts, by source, the records that its
        `events` left out on the way. Not for groups so large that `append` may throttle them.
        """
        if not self._writing.take():
            return False
        if self._ended < 0:
            self._start()
        cursors = self._with_cursors = self._due_cursors()
        self._batches, self._began_at, self.under_way = batches, time.perf_counter(), True
        self._writer.begin(self._append, (batches, positions, cursors, filtered), self._ended)
        return True

    async def wait(self) -> None:
        """Wait until what has begun is to be ended, or for `wake`. Cancelled, nothing changes."""
        if self._ended < 0:
            self._start()
        await trio.lowlevel.wait_readable(self._ended)
        os.eventfd_read(self._ended)

    def _start(self) -> None:
        self._ended = event_descriptor()
        self._writer.start()

    def wake(self) -> None:
        """Wake the committer, which is in `wait`, though nothing was begun for it."""
        os.eventfd_write(self._ended, 1)

    def end(self) -> None:
        """The commit has returned: its records count from now on.

        Raises BufferFull when there is no room now (nothing is stored), BufferBroken when the
        process must end.
        """
        self.under_way = False
        try:
            used: int = self._writer.result()
        except BaseException:
            self._cursors.put_back(self._with_cursors)
            raise
        finally:
            self._writing.release()
        batches, self._batches = self._batches, []
        self._note_stored(batches, used, self._began_at)

    def close(self) -> None:
        """Nobody waits any more."""
        if self._ended >= 0:
            os.close(self._ended)
            self._ended = -1

    def _due_cursors(self) -> Mapping[str, StoredCursor]:
        """The moved cursors that are to be stored with the next records."""
        cursors = self._cursors
        return cursors.take_unstored() if cursors.waited(WITH_RECORDS_S) else _NO_CURSORS

    def _append(
        self, batches: list[Batch], positions: Positions, cursors: Mapping[str, StoredCursor],
        filtered: Mapping[str, int],
    ) -> int:  # fmt: skip
        """The work of the thread; returns the bytes that the records use."""
        if batches and self._reserve.is_spent(time.monotonic()):
            raise DiskFull("the file system of state_dir is full")
        used = self._store.append(batches, positions, cursors, filtered)
        self._watermark.note(batches[-1].next_sequence if batches else self._kept.end, cursors)
        return used

    def _note_stored(self, batches: list[Batch], used: int, began_at: float) -> None:
        stats = self.stats
        stats.committed(time.perf_counter() - began_at, used)
        if not batches:
            return
        # Invariant: readers never see a record that a power cut could take back. The end moves
        # here only, after the commit's fsync; checked by
        # test_a_reader_never_sees_a_record_before_its_commit.
        for batch in batches:
            self._recent.add(batch)
        self._kept.end = batches[-1].next_sequence
        if stats.oldest_received_at is None:
            stats.oldest_received_at = batches[0].received_at
        self.grown.wake_all()
