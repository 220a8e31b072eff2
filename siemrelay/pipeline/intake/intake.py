"""Stores records: sources hand over, one committer writes them in groups.

While one commit runs, the next group collects: a lone record waits for one fsync, a thousand
concurrent records share one. In a rush a group also waits until it is full, at most for
`batch_window`, as each commit costs a millisecond of processor time whatever its size; not if a
sender waits for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Final

import structlog
import trio

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.core.errors import BufferFull, DiskFull
from siemrelay.net.listening_sockets import ListeningSockets
from siemrelay.net.tasks import Broadcast
from siemrelay.pipeline.coalescing import Coalescer
from siemrelay.pipeline.intake.commit_group import (
    FULL_BYTES,
    LARGE_BYTES,
    ROW_RECORDS,
    CommitGroup,
    has_own_row,
    row_sized,
)
from siemrelay.pipeline.intake.record_splitter import RecordSplitter
from siemrelay.pipeline.intake.source_filter import Filtered, SourceFilter
from siemrelay.pipeline.intake.stats_reports import StatsReports
from siemrelay.pipeline.observer import IntakeObserver
from siemrelay.sources.contract import Records
from siemrelay.telemetry.stats import BufferStats, SourceStats, Stats, count_types

_log = structlog.get_logger()

# Records shorter than this are stored far faster than they are decoded and sent, so that a flood of
# them would be ahead of everybody else's records. One source may hand over one in this many
# seconds, and some at once; longer ones as many as there are. No audit event is so short. Checked
# by test_a_flood_of_the_shortest_lines_keeps_nobody_waiting.
_SHORT_BYTES: Final = 64
_SHORT_S: Final = 25e-6
_SHORT_BURST_S: Final = 0.2

# While a full disk has room for new records because others are deleted, it is logged this often.
_WARN_EVERY_S: Final = 600.0

# A full buffer is tried again this often.
_FULL_PAUSE_S: Final = 0.25


class Committer:
    """Stores the records of all sources, each source's in the order it offered them."""

    def __init__(
        self, buffer: DiskBuffer, stats: Stats, batch_window_s: float,
        observers: list[IntakeObserver] | None = None,
    ) -> None:  # fmt: skip
        self._buffer, self._stats = buffer, stats
        self.coalescer = Coalescer(batch_window_s)
        self._observers = [] if observers is None else observers
        self._group = CommitGroup()
        self._running: CommitGroup | None = None
        self._is_wanted = False  # whether the group is to be stored
        self._idle = False  # whether `run` waits for a group
        self._appending, self._room = buffer.appending, Broadcast()
        self._rush = False  # the sources hand over much at a time
        self._warned_at = -math.inf
        self.sockets = ListeningSockets()

    def intake(
        self, source: str, source_filter: SourceFilter | None = None,
        splitter: RecordSplitter | None = None,
    ) -> SourceIntake:  # fmt: skip
        """One source's intake; what `source_filter` leaves out is counted and not stored."""
        stats, positions = self._stats.sources[source], self._buffer.positions(source)
        return SourceIntake(self, stats, self._stats.buffer, positions, source_filter, splitter)

    async def take(
        self, source: SourceStats, some: Sequence[Records], filtered: int
    ) -> CommitGroup:
        """Queue records, waiting only for room; returns the group that will store them.

        `filtered` counts those that the source's filter left out of them.
        """
        while self._group.size_bytes >= FULL_BYTES:
            await self._room.wait()
        group, now = self._group, time.time()
        for records in some:
            group.add(source, records, now)
            if (self._rush or self._running is not None) and has_own_row(records):
                self._buffer.compress_ahead(records.payload)
        if filtered:
            group.filtered[source.name] = group.filtered.get(source.name, 0) + filtered
        self._is_wanted = True
        if self._idle:
            self._idle = False
            if self._rush or not self._begin():
                self._appending.wake()
        return group

    async def delivered(self, end: int) -> None:
        """Wait until the cursor of every sink, unless disabled or paused, is there or past it."""
        await self._buffer.wait_passed(list(self._stats.sinks), end)

    def newest(self) -> CommitGroup | None:
        """The last pending group; None when everything is stored."""
        return self._group if self._group.entries else self._running

    async def settled(self) -> None:
        """Wait until everything that was taken by now is on disk."""
        if (group := self.newest()) is not None:
            await group.until_stored()

    async def run(self) -> None:
        """Commit group after group until cancelled; a commit under way is finished first."""
        appending = self._appending
        while True:
            if self._running is None and self._is_wanted:
                if self._rush:
                    await self._group.until_full(self.coalescer.window_s)
                if not self._begin():
                    self._next_group()
            if self._running is not None and not appending.under_way:
                await self._store(self._running)
                await trio.lowlevel.checkpoint_if_cancelled()  # more may be wanted for ever
                continue
            self._idle = self._running is None
            try:
                await appending.wait()
            except trio.Cancelled:
                if appending.under_way:
                    with trio.CancelScope(shield=True):
                        await appending.wait()
                        self._end()
                raise
            finally:
                self._idle = False
            if appending.under_way and (error := self._end()) is not None:
                await self._wait_for_room(error)

    def _end(self) -> BufferFull | None:
        """The commit that `_begin` began has returned; the error if nothing is stored."""
        assert self._running is not None
        try:
            self._appending.end()
        except BufferFull as error:
            return error
        self._note_stored(self._running)
        return None

    def _begin(self) -> bool:
        """Begin to store the group if nothing is to be waited for; whether it has begun."""
        group, buffer = self._group, self._buffer
        group.number(buffer.end)
        has_begun = (
            group.size_bytes < LARGE_BYTES
            and (not group.batches or buffer.retention.has_room(group.size_bytes // 2))
            and self._appending.begin(group.batches, group.positions, group.filtered)
        )
        if has_begun:
            self._next_group()
        return has_begun

    def _next_group(self) -> None:
        """Let the next group collect, while this one is stored."""
        self._running = self._group
        self._rush = self._running.size_bytes >= LARGE_BYTES
        self._group, self._is_wanted = CommitGroup(), False
        self._room.wake_all()

    async def _store(self, group: CommitGroup) -> None:
        group.number(self._buffer.end)
        while True:
            try:
                if group.batches and not await self._buffer.retention.make_room(
                    group.size_bytes // 2
                ):
                    raise BufferFull("the buffer has reached max_size")
                await self._buffer.append(group.batches, group.positions, group.filtered)
            except BufferFull as error:
                await self._wait_for_room(error)
            else:
                break
        self._note_stored(group)

    async def _wait_for_room(self, error: BufferFull) -> None:
        if isinstance(error, DiskFull) and await self._buffer.retention.reclaim():
            self._warn_disk_full()
        else:
            self._full(error)
            await trio.sleep(_FULL_PAUSE_S)

    def _note_stored(self, group: CommitGroup) -> None:
        for observer in self._observers:
            observer.stored(group.batches)
        buffer = self._stats.buffer
        if buffer.full:
            buffer.full = False
            _log.info("buffer has room again", waited_s=round(time.time() - buffer.full_since, 1))
        now = trio.current_time()
        for source, records, taken_at in group.entries:
            source.records += records.count
            source.bytes += len(records.payload)
            source.progress_at = now
            if records.count:
                source.last_record_at = records.last_record_at or taken_at
        for name, count in group.filtered.items():
            if (stats := self._stats.sources.get(name)) is not None:
                stats.filtered += count
        self._running = None
        group.stored(self._buffer.end)

    def _warn_disk_full(self) -> None:
        now = trio.current_time()
        if now - self._warned_at >= _WARN_EVERY_S:
            self._warned_at = now
            _log.warning("the file system of state_dir is full",
                         advice="free space there; delivered records that `keep` holds for replay "
                         "are deleted early, and then intake waits")  # fmt: skip

    def _full(self, error: BufferFull) -> None:
        buffer = self._stats.buffer
        buffer.disk_full = isinstance(error, DiskFull)
        if not buffer.full:
            buffer.full, buffer.full_since = True, time.time()
            advice = (
                "free space there; intake waits and resumes by itself"
                if buffer.disk_full
                else "intake waits for the sinks that hold it: see their state, or raise `max_size`"
            )
            holders = self._buffer.holders()
            _log.error("buffer is full", reason=str(error), advice=advice,
                       **({"held_by": holders} if holders else {}))  # fmt: skip


class SourceIntake(StatsReports):
    """Implements `sources.contract.Intake` for one source."""

    def __init__(
        self, committer: Committer, stats: SourceStats, buffer: BufferStats,
        positions: Mapping[str, Mapping[str, Any]], source_filter: SourceFilter | None,
        splitter: RecordSplitter | None,
    ) -> None:  # fmt: skip
        super().__init__(stats)
        self._committer, self._buffer = committer, buffer
        self._source_filter, self._splitter = source_filter, splitter
        self._positions = dict(positions)
        self._filtering = trio.Lock()
        self._short_until = 0.0
        self.turn = committer.coalescer.turn

    async def offer(self, *records: Records) -> None:
        await self._take(records)
        self._note_positions(records)

    async def store(self, *records: Records) -> int:
        group = await self._take(records)
        self._note_positions(records)
        return await group.until_stored()

    async def delivered(self, stored: int) -> None:
        await self._committer.delivered(stored)

    @property
    def full(self) -> bool:
        return self._buffer.full

    @property
    def sockets(self) -> ListeningSockets:
        return self._committer.sockets

    async def settled(self) -> None:
        await self._committer.settled()

    def positions(self) -> Mapping[str, Mapping[str, Any]]:
        return self._positions

    def _pause_s(self, short: int) -> float:
        """How long records of which so many are short must wait for them and those before."""
        now = trio.current_time()
        pause_s = max(self._short_until - _SHORT_BURST_S - now, 0.0)
        self._short_until = max(self._short_until, now) + short * _SHORT_S
        return pause_s

    async def _take(self, offered: Sequence[Records]) -> CommitGroup:
        if self._splitter is not None:
            offered = await self._splitter.split(offered)
        short, as_offered = 0, self._source_filter is None
        for some in offered:
            if len(some.payload) < some.count * _SHORT_BYTES:
                short += some.count - len(some.payload) // _SHORT_BYTES
            if some.count > ROW_RECORDS:
                as_offered = False
        if short and (pause_s := self._pause_s(short)):
            await trio.sleep(pause_s)
        if as_offered:
            return await self._committer.take(self._stats, offered, 0)
        kept, outcomes, since_checkpoint = list[Records](), list[Filtered](), 0
        try:
            for piece in chain.from_iterable(map(row_sized, offered)):
                if since_checkpoint >= ROW_RECORDS:
                    await trio.lowlevel.checkpoint()
                    since_checkpoint = 0
                since_checkpoint += piece.count
                if self._source_filter is None:
                    kept.append(piece)
                    continue
                outcomes.append(await self._filtered(self._source_filter, piece))
                kept += outcomes[-1].pieces()
            filtered = sum(records.count for records in offered) - sum(some.count for some in kept)
            group = await self._committer.take(self._stats, kept, filtered)
        except trio.Cancelled:
            if self._source_filter is not None:
                for outcome in outcomes:
                    self._source_filter.not_stored(outcome.counted)
            raise
        for outcome in outcomes:
            self._stats.redacted += outcome.redacted
            count_types(self._stats.limited, outcome.limited)
        return group

    async def _filtered(self, source_filter: SourceFilter, piece: Records) -> Filtered:
        """Apply the filter: here, but in a thread if it takes long; one at a time."""
        if not (self._filtering.locked() or source_filter.takes_long(piece)):
            return source_filter.apply(piece)
        async with self._filtering:
            return await trio.to_thread.run_sync(source_filter.apply, piece)

    def _note_positions(self, taken: Sequence[Records]) -> None:
        # A source that restarts resumes after what it handed over, not from the last start.
        for records in taken:
            for position in records.positions:
                if position.value is None:
                    self._positions.pop(position.key, None)
                else:
                    self._positions[position.key] = position.value
