"""The disk buffer for the relay: append, read from a cursor, advance cursors, make room.

Invariants, each checked in test_buffer.py:
1. oldest kept <= every cursor <= durable end;
2. the durable end moves only after the commit's fsync returned;
3. a row is deleted only when every cursor is past it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Set
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
import trio

from siemrelay.buffer.appending import Appending, Positions
from siemrelay.buffer.cursor_flusher import CursorFlusher
from siemrelay.buffer.cursors import KeptRange, SinkCursors
from siemrelay.buffer.dead_letters import DeadLetter
from siemrelay.buffer.disk_reads import DiskReads
from siemrelay.buffer.recent import KEPT_BYTES, RecentBatches
from siemrelay.buffer.recovery import FoundState, recover
from siemrelay.buffer.reserve import SMALL, EmergencyReserve, sizes_for
from siemrelay.buffer.retention import Retention
from siemrelay.buffer.rows import StoredCursor
from siemrelay.buffer.sink_cursor import Outcome, SinkCursor, SinkPolicy
from siemrelay.buffer.sqlite.opened import Opened
from siemrelay.buffer.state_dir import lock_state_dir, open_store
from siemrelay.buffer.threads import WriterThread, in_thread
from siemrelay.buffer.watermark import HighWatermark
from siemrelay.core.event import Batch
from siemrelay.net.tasks import Mutex, next_second
from siemrelay.proof.stream import StreamChange
from siemrelay.telemetry.stats import BufferStats

# After a power cut the high watermark is at most this old. It only detects losses, and each sync
# of it competes with the commits' fsyncs, so it is synced seldom.
_LOOK_EVERY_S: Final = 10

_NONE: Final[Mapping[str, str]] = {}
_NOBODY: Final[Mapping[str, int]] = {}

_log = structlog.get_logger()


class DiskBuffer:
    """Records on disk, one cursor per sink. Use as a context manager.

    Opening locks the directory. Raises StartRefused when it is in use, was written by a newer
    siemrelay or has no room; BufferBroken when the disk fails.
    """

    def __init__(
        self, state_dir: Path, *, max_size_bytes: int, keep_s: float, stats: BufferStats,
        recent_bytes: int = KEPT_BYTES,
    ) -> None:  # fmt: skip
        """Keeps at most `max_size_bytes` on disk, and the newest `recent_bytes` in memory too.

        Delivered records stay for `keep_s`.
        """
        with ExitStack() as opening:
            self._lock_descriptor = lock_state_dir(state_dir)
            opening.callback(os.close, self._lock_descriptor)
            sizes = sizes_for(state_dir)
            reserve = self._reserve = EmergencyReserve(state_dir, sizes.reserve_bytes)
            self._store = open_store(state_dir, reserve, sizes.log_bytes)
            opening.callback(self._store.close)
            self._watermark = HighWatermark(state_dir)
            opened = self._store.opened()
            known, end, used = self._recover(opened)
            if sizes is SMALL:  # a small disk may be full before retention runs
                reserve.hold()
            opening.pop_all()
        self.stats = stats
        self.compress_ahead = self._store.compress_ahead
        """Begin to compress the records of a large row that the next commit will store."""
        self._kept = KeptRange(end, end)
        self._known_cursors, self._writing = known, Mutex()
        self._writer = WriterThread()
        self.removed = opened.removed
        """The sinks among `places` that are no longer configured, and since when (seconds)."""
        self.source_counts = opened.sources
        """The counts of each source by name, as they were before this start."""
        self._cursors = SinkCursors(known, self._kept)
        self._recent = RecentBatches(end, recent_bytes)
        self.appending = Appending(
            self._store, self._writing, self._writer, self._cursors, self._kept, self._recent,
            reserve, self._watermark, stats,
        )  # fmt: skip
        """Stores records: for the committer."""
        self.flusher = CursorFlusher(
            self._store, self._cursors, self._writing, self._writer, reserve
        )
        """Stores the cursors that moved."""
        self.retention = Retention(
            self._store, self._writing, self._writer, self._cursors, self._kept, reserve, stats,
            max_size_bytes=max_size_bytes, keep_s=keep_s,
        )  # fmt: skip
        """Makes room."""
        self._disk_reads = DiskReads(self._store)
        stats.size_bytes = used
        self.retention.note_oldest(opened.oldest)

    def _recover(self, opened: Opened) -> tuple[dict[str, StoredCursor], int, int]:
        """Log what is missing; returns cursors, end and used bytes, as they are now on disk."""
        oldest = None if opened.oldest is None else opened.oldest[0]
        found = FoundState(opened.next_sequence, opened.cursors, oldest, opened.rows_end)
        recovered = recover(found, self._watermark.read())
        for finding in recovered.findings:
            facts = msgspec.structs.asdict(finding)
            message = facts.pop("message")
            _log.error(message, **{k: v for k, v in facts.items() if v is not None})
        used = opened.used_bytes
        if recovered.changed or used is None:
            repair = partial(self._store.repair, recovered.next_sequence, recovered.cursors)
            used = self._reserve.spend_for(repair)
        return recovered.cursors, recovered.next_sequence, used

    def __enter__(self) -> DiskBuffer:
        return self

    def __exit__(self, *exc: object) -> None:
        self._writer.close()
        self.appending.close()
        try:
            if not self._store.io_failed:
                self.flusher.leave()
        finally:
            self._store.close()
            self._watermark.close()
            os.close(self._lock_descriptor)

    @property
    def end(self) -> int:
        """The sequence number after the last durable record."""
        return self._kept.end

    @property
    def oldest(self) -> int:
        """The oldest sequence number kept; `end` when nothing is."""
        return self._kept.oldest

    def positions(self, source: str) -> dict[str, dict[str, Any]]:
        """A source's stored positions by key."""
        return self._store.positions(source)

    # -- sinks ------------------------------------------------------------

    def set_sinks(
        self, sinks: Mapping[str, SinkPolicy], renamed: Mapping[str, str] = _NONE,
        removed: Mapping[str, int] = _NOBODY,
    ) -> list[str]:  # fmt: skip
        """Make these the sinks, each with its policy. Call once, before anything is appended.

        A sink known from before keeps its cursor; one that is gone stops holding records back, and
        its name is returned. `renamed` are old names by new ones: a new one takes the cursor, the
        counts and the dead letters over; the old one must have a place, the new one none. `removed`
        says of sinks that are no longer configured since when (seconds), to be found at the next
        start. Raises StartRefused when the cursors cannot be stored.
        """
        gone = self._cursors.choose(sinks, renamed)
        cursors = self._cursors.stored()
        if gone or cursors != self._known_cursors or removed != self.removed:
            replace = partial(self._store.replace_cursors, cursors, renamed, removed)
            self._reserve.spend_for(replace)
            self.removed = dict(removed)
        self._known_cursors = cursors
        self._watermark.start_with(self.end, cursors)
        return gone

    async def change_sinks(
        self, sinks: Mapping[str, SinkPolicy], renamed: Mapping[str, str] = _NONE,
        removed: Mapping[str, int] = _NOBODY,
    ) -> None:  # fmt: skip
        """As `set_sinks`, while records are appended and cursors move; on disk when it returns.

        The cursor of a sink that is gone is forgotten, and its records are no longer held back.
        Raises StartRefused when the cursors cannot be stored; then nothing has changed.
        """
        async with self._writing:
            with self._cursors.changing(sinks, renamed):
                cursors = self._cursors.stored()
                replace = partial(self._store.replace_cursors, cursors, renamed, removed)
                await self._writer.run(self._reserve.spend_for, replace)
                self.removed = dict(removed)
                self._watermark.start_with(self.end, cursors)
        self._known_cursors = cursors

    def rename_source(self, old: str, new: str) -> None:
        """Give a source's positions and counts to its new name, unless that has some. At a start.

        Raises StartRefused.
        """
        renamed = self._reserve.spend_for(partial(self._store.rename_source, old, new))
        if renamed and old in self.source_counts:
            self.source_counts[new] = self.source_counts.pop(old)

    async def change_source_name(self, old: str, new: str) -> None:
        """As `rename_source` while the relay runs; neither source does."""
        async with self._writing:
            await self._writer.run(self.rename_source, old, new)

    @property
    def places(self) -> Mapping[str, StoredCursor]:
        """The sinks that have a cursor here, with it: before `set_sinks` those on disk."""
        return {**self._known_cursors, **self._cursors.stored()}

    def cursor(self, sink: str) -> SinkCursor:
        """The sink's cursor, live."""
        return self._cursors[sink]

    def find_cursor(self, sink: str) -> SinkCursor | None:
        """As `cursor`; None for a sink that is gone, as during a reload that removes it."""
        return self._cursors.get(sink)

    def advance(self, sink: str, next_sequence: int, outcome: Outcome) -> None:
        """Settle every record before `next_sequence` for the sink, as `outcome` counts them.

        Stored within moments.
        """
        self._cursors.advance(sink, next_sequence, outcome)

    async def store_dead_letters(
        self, letters: list[DeadLetter], next_sequence: int, outcome: Outcome
    ) -> None:
        """Keep refused records as dead letters and `advance`, both on disk when this returns."""
        sink = letters[0].sink
        async with self._writing:
            stored = self._cursors[sink].after(next_sequence, outcome)
            await self._writer.run(self._store.store_dead_letters, letters, {sink: stored})
            self.advance(sink, next_sequence, outcome)

    async def change_stream(self, sink: str, change: StreamChange) -> None:
        """Change the sink's stream; it and the cursor are on disk, fsynced, at return.

        A batch may be settled while it waits, so `change` gets the stream as it is then. Raises
        BufferFull; the stream has changed all the same, and goes to disk with the cursor.
        """
        async with self._writing:
            cursor = self._cursors[sink]
            cursor.stream = change(cursor.stream)
            await self._writer.run(self._store.store_dead_letters, (), {sink: cursor.stored()})

    def set_enabled(self, sink: str, *, enabled: bool) -> None:
        """Treat a sink from now on as an enabled or a disabled one: see `SinkPolicy`."""
        self._cursors.set_enabled(sink, enabled=enabled)

    async def wait_settled(self) -> None:
        """Wait until some cursor moves."""
        await self._cursors.wait_moved()

    async def wait_passed(self, sinks: Sequence[str], sequence: int) -> None:
        """Wait until every record before `sequence` is settled for all these sinks.

        A sink that is disabled, or removed meanwhile, is not waited for.
        """

        def waiting(sink: str) -> bool:
            cursor = self._cursors.get(sink)
            return cursor is not None and cursor.policy.enabled and cursor.next_sequence < sequence

        while any(map(waiting, sinks)):
            await self._cursors.wait_moved()

    # -- records ----------------------------------------------------------

    async def append(
        self, batches: list[Batch], positions: Positions,
        filtered: Mapping[str, int] = _NOBODY,
    ) -> None:  # fmt: skip
        """Store records and positions in one transaction; they are on disk when this returns.

        `filtered` counts, by source, the records that its `events` left out on the way.
        `batches` continue at `end`. Raises BufferFull when there is no room now (nothing is stored,
        room was looked for), BufferBroken when the process must end. A commit that has begun is
        waited for when cancelled.
        """
        await self.appending.append(batches, positions, filtered)

    async def read(self, sequence: int) -> list[Batch]:
        """Batches from the one that holds `sequence` on, in order; waits until there is one.

        From memory near the tail, else from disk. The first batch may begin before `sequence`, or
        after it where older records were deleted. Always yields to the other tasks.
        """
        if sequence < self._kept.end:
            await trio.lowlevel.checkpoint()
        while True:
            while sequence >= self._kept.end:
                await self.appending.grown.wait()
            if (newest := self._recent.take(sequence)) is not None:
                return [newest]
            # The thread may see a commit that this task does not know yet: nothing beyond the end.
            end = self._kept.end
            found = await self._disk_reads.read(sequence, end)
            # No row is left: an empty batch moves the reader past what was dropped or is missing.
            return found or [Batch(end, 0, "", 0.0, b"")]

    async def records(self, wanted: Set[int]) -> dict[int, Batch]:
        """Records as batches of one, by sequence number; without those that are not kept."""
        return await in_thread(self._store.alone, wanted)

    async def note_commands(self) -> None:
        """Update the counts that commands change on disk: dead letters and replayed records."""
        self.stats.dead_letters, cursors = await in_thread(
            lambda: (self._store.dead_letters(), self._store.cursors())
        )
        self._cursors.note_commands(cursors)

    def holders(self) -> list[str]:
        """The sinks that intake waits for in a full buffer."""
        return self._cursors.holders()

    async def received_at(self, sequences: Set[int]) -> dict[int, float | None]:
        """When these records were received (seconds since the epoch); None for one not kept."""
        return await in_thread(lambda: {one: self._store.received_at(one) for one in sequences})

    # -- tasks ------------------------------------------------------------

    async def run(self) -> None:
        """Store cursors as they move, delete what is old, watch the files, until cancelled.

        Raises BufferMoved when the files are no longer at their path, BufferBroken when the disk
        fails.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.flusher.run, self.retention.reclaim)
            nursery.start_soon(self.retention.retain)
            nursery.start_soon(self._watch_files)

    async def _watch_files(self) -> None:
        # Every commit checks the files, too; without traffic there is nothing to lose meanwhile.
        while True:
            await in_thread(self._look_at_files)
            await next_second(_LOOK_EVERY_S)

    def _look_at_files(self) -> None:
        self._store.check_identity()
        self._watermark.sync()
