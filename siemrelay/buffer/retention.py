"""Which records are deleted: old delivered ones, and the oldest ones when the buffer is full."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import structlog

from siemrelay.buffer.cursors import KeptRange, SinkCursors
from siemrelay.buffer.reserve import SMALL, EmergencyReserve
from siemrelay.buffer.rows import StoredCursor
from siemrelay.buffer.sink_cursor import SinkPolicy
from siemrelay.buffer.sqlite.store import Store
from siemrelay.buffer.threads import WriterThread, in_thread
from siemrelay.core.errors import BufferFull
from siemrelay.net.tasks import Mutex, next_second
from siemrelay.telemetry.stats import BufferStats

_log = structlog.get_logger()

# How often old rows are deleted while there is room.
_RETENTION_PAUSE_S: Final = 5

# New records need room in the log before they can reuse free pages: two groups of them.
_COMING_BYTES: Final = 4 * 1024 * 1024

# Rows that sinks give up at a time when the buffer is full.
_DROP_ROWS: Final = 16

# By whether the sink is enabled.
_DROPPED_ADVICE: Final = {
    True: "`when_full: drop_oldest` does this; find out why the sink lags",
    False: "it is disabled, paused or no longer configured, and such a sink does not make intake "
    "wait: enable or resume it, or discard its records (`--discard-backlog` of `siemrelay reload`)",
}


class Retention:
    """Deletes rows that every cursor has passed, and on a full disk moves those that give way."""

    def __init__(
        self, store: Store, writing: Mutex, writer: WriterThread, cursors: SinkCursors,
        kept: KeptRange, reserve: EmergencyReserve, stats: BufferStats, *,
        max_size_bytes: int, keep_s: float,
    ) -> None:  # fmt: skip
        self._store, self._writing, self._cursors = store, writing, cursors
        self._writer = writer
        self._kept, self._reserve, self._stats = kept, reserve, stats
        self._logged_drops: set[str] = set()
        self.set_limits(max_size_bytes=max_size_bytes, keep_s=keep_s)

    def set_limits(self, *, max_size_bytes: int, keep_s: float) -> None:
        """Change the limits from now on."""
        self._stats.max_size_bytes, self._keep_s = max_size_bytes, keep_s

    def has_room(self, wanted_bytes: int) -> bool:
        """Whether so many more (compressed) bytes fit into `max_size` as it is."""
        stats = self._stats
        return (
            stats.size_bytes + wanted_bytes <= stats.max_size_bytes
            or self._kept.oldest >= self._kept.end
        )

    async def make_room(self, wanted_bytes: int) -> bool:
        """Whether so many more (compressed) bytes fit into `max_size`, after doing what may be.

        Delivered records that are only kept for replay go first, then the oldest of disabled sinks,
        then those of sinks with `drop_oldest`. An empty buffer takes anything.
        """
        while not self.has_room(wanted_bytes):
            if not await self.delete(received_before=float("inf")) and not await self._drop():
                return False
        return True

    async def reclaim(self) -> bool:
        """On a full disk: free what is kept for replay only, or what sinks give up as at max_size.

        Returns whether anything was freed.
        """
        try:
            if self._cursors.passed() <= self._kept.oldest:
                await self._drop()
            async with self._writing:
                deletable = self._cursors.passed() > self._kept.oldest
                await self._writer.run(self._make_room_to_delete, deletable)
            freed = await self.delete(received_before=float("inf")) > 0
            async with self._writing:
                return await self._writer.run(self._give_back) or freed
        except BufferFull:
            return False  # no room even for that: the caller waits

    def _make_room_to_delete(self, deletable: bool) -> None:
        if deletable or self._store.free_pages():
            self._reserve.release()
        self._store.shrink_log()

    def _give_back(self) -> bool:
        """Give free pages back to the file system: enough for the reserve and the next records."""
        given = False
        while self._reserve.lacks(_COMING_BYTES) and self._store.vacuum():
            # The log of this vacuum takes room itself.
            self._store.shrink_log()
            given = True
        self._store.shrink_log()
        self._reserve.hold(again=True)
        return given

    async def retain(self) -> None:
        """Delete delivered rows that are older than `keep_s`, periodically, until cancelled."""
        while True:
            # A full disk stops deletion too, until `reclaim` or an operator makes room.
            with suppress(BufferFull):
                while self._may_be_expired() and await self.delete(
                    received_before=time.time() - self._keep_s
                ):
                    pass
            # A buffer smaller than the reserve has less to delete than the reserve takes.
            size_bytes = self._reserve.size_bytes
            if size_bytes == SMALL.reserve_bytes or self._stats.size_bytes > size_bytes:
                async with self._writing:
                    await self._writer.run(self._reserve.hold)
            await next_second(_RETENTION_PAUSE_S)

    def _may_be_expired(self) -> bool:
        """Whether there may be something to delete; known without a look at the disk."""
        if self._cursors.passed() <= self._kept.oldest:
            return False
        # A clock that was set back leaves a time to come on old records; those behind may be older.
        now, oldest_at = time.time(), self._stats.oldest_received_at
        return oldest_at is None or not now - self._keep_s <= oldest_at <= now

    async def delete(self, received_before: float) -> int:
        """Delete some rows that every sink has passed and that are older; returns bytes freed."""
        async with self._writing:
            before = self._cursors.passed()
            # In one transaction with the cursors that allow it: a cursor on disk is never before
            # the oldest row, so that one that is proves a loss (see recovery.py).
            with self._cursors.being_stored() as cursors:
                freed, oldest = await self._writer.run(
                    self._delete_and_look, before, received_before, cursors
                )
            if freed:
                self._stats.size_bytes -= freed
                self.note_oldest(oldest)
        return freed

    def _delete_and_look(
        self, before: int, received_before: float, cursors: Mapping[str, StoredCursor]
    ) -> tuple[int, tuple[int, float] | None]:
        return self._store.delete(before, received_before, cursors), self._store.oldest()

    def note_oldest(self, found: tuple[int, float] | None) -> None:
        """Note the oldest row: its first sequence number and received time."""
        self._kept.oldest = found[0] if found else self._kept.end
        self._stats.oldest_received_at = found[1] if found else None

    async def _drop(self) -> bool:
        """Move sinks past the oldest rows, and count the records; whether any row became free.

        Disabled sinks give way first, then those with `drop_oldest` too, and only as far as rows
        become free: not beyond the first record of a sink that makes intake wait.
        """
        row_ends = await in_thread(self._store.ends_of_oldest, _DROP_ROWS)
        return any(self._drop_before(row_ends, who) for who in (_is_disabled, _gives_way))

    def _drop_before(self, row_ends: list[int], gives_way: Callable[[SinkPolicy], bool]) -> bool:
        kept = [each.next_sequence for each in self._cursors if not gives_way(each.policy)]
        limit = min(kept, default=self._kept.end)
        end = max((row_end for row_end in row_ends if row_end <= limit), default=0)
        behind = [each for each in self._cursors if each.next_sequence < end]
        for cursor in behind:
            if cursor.name not in self._logged_drops:
                self._logged_drops.add(cursor.name)
                # Once a process, as it may go on for days; the metric has the number.
                _log.error("the buffer is full: a sink loses its oldest records", sink=cursor.name,
                           first_sequence=cursor.next_sequence,
                           advice=_DROPPED_ADVICE[cursor.policy.enabled])  # fmt: skip
            self._cursors.give_up(cursor, end)
        return bool(behind)


def _is_disabled(policy: SinkPolicy) -> bool:
    return not policy.enabled


def _gives_way(policy: SinkPolicy) -> bool:
    return policy.gives_way
