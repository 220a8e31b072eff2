"""The disk buffer as the relay sees it: append, read on from a cursor, move cursors, make room.

Invariants, each checked in test_buffer.py:
1. oldest kept <= every cursor <= durable end;
2. the durable end moves only after the commit's fsync returned;
3. a row is deleted only when every cursor is past it.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, TypeVarTuple

import msgspec
import trio

from siemrelay.buffer.reserve import RESERVE_BYTES, Reserve
from siemrelay.buffer.schema import lock_state_dir
from siemrelay.buffer.store import DeadLetter, Store
from siemrelay.errors import BufferFull, StartRefused
from siemrelay.event import Batch
from siemrelay.stats import BufferStats

# What was stored last stays in memory for the sinks at the tail; 4 batches of a busy file source.
_TAIL_BYTES: Final = 2 * 1024 * 1024

# A lagging sink reads this much from disk at a time: one thread hop for a few batches.
READ_BYTES: Final = 1024 * 1024

# Cursors that move are stored together, at most this much later; so much may be repeated after a
# crash of the process, beside what is in flight.
_CURSOR_PAUSE_S: Final = 0.01

# How often old rows are looked for when nothing presses.
_RETENTION_PAUSE_S: Final = 5.0

# A full disk is asked again this often.
_FULL_PAUSE_S: Final = 1.0

# Rows that a sink with drop_oldest gives up at a time when the buffer is full.
_DROP_ROWS: Final = 16


_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class SinkPlace(msgspec.Struct):
    """One sink's place: `next_sequence` is the first record that is not settled for it."""

    name: str
    next_sequence: int
    drop_oldest: bool
    dropped: int = 0


class DiskBuffer:
    """Records on disk, one cursor per sink. Use as a context manager.

    Opening locks the directory. Raises StartRefused when it is in use, was written by a newer
    siemrelay or has no room; BufferBroken when the disk fails.
    """

    def __init__(
        self, state_dir: Path, *, max_size_bytes: int, keep_s: float, stats: BufferStats
    ) -> None:
        with ExitStack() as opening:
            self._lock_descriptor = lock_state_dir(state_dir)
            opening.callback(os.close, self._lock_descriptor)
            try:
                self._store = Store(state_dir / "buffer.db")
                opening.callback(self._store.close)
                opened, oldest = self._store.opened(), self._store.oldest()
                stats.dead_letters = self._store.dead_letters()
            except BufferFull as error:
                raise StartRefused(f"cannot open the buffer in {state_dir}: {error}") from error
            opening.pop_all()
        self.stats, self._max_size, self._keep_s = stats, max_size_bytes, keep_s
        self._reserve = Reserve(state_dir / "reserve")
        self._end = opened.next_sequence
        self._known_cursors = opened.cursors
        self._places: dict[str, SinkPlace] = {}
        self._dirty: dict[str, int] = {}
        self._dirty_event = trio.Event()
        self._writing = trio.Lock()
        self._grown = trio.Event()
        self._settled = trio.Event()
        self._tail: deque[Batch] = deque()
        self._tail_bytes = 0
        stats.size_bytes = opened.used_bytes
        self._note_oldest(oldest)

    def __enter__(self) -> DiskBuffer:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            # On a full disk they stay behind: the records since then are sent again.
            with suppress(BufferFull):
                self._store.save_cursors(self._dirty)
        finally:
            self._store.close()
            os.close(self._lock_descriptor)

    @property
    def end(self) -> int:
        """The sequence number after the last durable record."""
        return self._end

    @property
    def oldest(self) -> int:
        """The oldest sequence number kept; `end` when nothing is."""
        return self._oldest

    def positions(self, source: str) -> dict[str, dict[str, Any]]:
        """A source's stored positions by key."""
        return self._store.positions(source)

    # -- sinks ------------------------------------------------------------

    def set_sinks(self, sinks: Mapping[str, tuple[bool, bool]]) -> list[str]:
        """Make these the sinks: name → (drop_oldest, start at the oldest record if new).

        A sink known from before keeps its cursor; one that is gone stops holding records back.
        Returns the names of those forgotten. Call once, before anything is appended.
        """
        for name, (drop_oldest, from_oldest) in sinks.items():
            start = self._known_cursors.get(name, self._oldest if from_oldest else self._end)
            start = min(max(start, self._oldest), self._end)
            self._places[name] = SinkPlace(name, start, drop_oldest)
        cursors = {place.name: place.next_sequence for place in self._places.values()}
        if cursors != self._known_cursors:
            self._store.keep_sinks(cursors)
        return sorted(self._known_cursors.keys() - sinks.keys())

    def place(self, sink: str) -> SinkPlace:
        """The sink's place, live."""
        return self._places[sink]

    def advance(self, sink: str, next_sequence: int) -> None:
        """Settle every record before `next_sequence` for the sink. Stored within moments."""
        place = self._places[sink]
        assert next_sequence <= self._end, (next_sequence, self._end)
        if next_sequence > place.next_sequence:
            place.next_sequence = next_sequence
            self._dirty[sink] = next_sequence
            self._dirty_event.set()
            self._settled.set()
            self._settled = trio.Event()

    async def bury(self, letters: list[DeadLetter], next_sequence: int) -> None:
        """Keep refused records as dead letters and pass them, on disk when this returns."""
        sink = letters[0].sink
        async with self._writing:
            # The cursor may have been moved on meanwhile, to make room.
            passed = max(next_sequence, self._places[sink].next_sequence)
            await _in_thread(self._store.bury, letters, {sink: passed})
            self.stats.dead_letters[sink] = self.stats.dead_letters.get(sink, 0) + len(letters)
            self.advance(sink, next_sequence)

    async def wait_settled(self) -> None:
        """Wait until some cursor moves."""
        await self._settled.wait()

    # -- records ----------------------------------------------------------

    async def append(
        self,
        batches: list[Batch],
        positions: Mapping[tuple[str, str], Mapping[str, Any] | None],
    ) -> None:
        """Store records and positions in one transaction; they are on disk when this returns.

        `batches` continue at `end`. Raises BufferFull when there is no room now (nothing is stored,
        room was looked for), BufferBroken when the process must end. Cancelling waits for the
        commit: what is on disk is known to be there.
        """
        started = time.perf_counter()
        async with self._writing:
            with trio.CancelScope(shield=True):
                cursors, self._dirty = self._dirty, {}
                try:
                    used = await _in_thread(self._store.append, batches, positions, cursors)
                except BaseException:
                    self._dirty = {**cursors, **self._dirty}
                    raise
        # Invariant: readers never see a record that a power cut could take back. The end moves
        # here only, after the commit's fsync; checked by
        # test_a_reader_never_sees_a_record_before_its_commit.
        for batch in batches:
            self._end = batch.next_sequence
            self._tail.append(batch)
            self._tail_bytes += len(batch.payload)
        while self._tail_bytes > _TAIL_BYTES and len(self._tail) > 1:
            self._tail_bytes -= len(self._tail.popleft().payload)
        self.stats.committed(time.perf_counter() - started, used)
        if batches:
            if self.stats.oldest_received_at is None:
                self.stats.oldest_received_at = batches[0].received_at
            self._grown.set()
            self._grown = trio.Event()

    async def read(self, sequence: int) -> list[Batch]:
        """Batches from the one that holds `sequence` on, in order; waits until there is one.

        From memory near the tail, else from disk. The first batch may begin before `sequence`, or
        after it where older records were deleted.
        """
        while True:
            while sequence >= self._end:
                await self._grown.wait()
            if self._tail and self._tail[0].first_sequence <= sequence:
                at = bisect_right(self._tail, sequence, key=_first) - 1
                return [self._tail[at]]
            # The thread may see a commit that is not known here yet: nothing beyond the end.
            end = self._end
            found = await _in_thread(self._store.read, sequence, end, READ_BYTES)
            if found:
                return found
            sequence = end  # all before it was dropped and deleted

    async def record(self, sequence: int) -> bytes | None:
        """One record's bytes as received; None if it is not kept."""
        for batch in await _in_thread(self._store.read, sequence, sequence + 1, 1):
            if batch.first_sequence <= sequence < batch.next_sequence:
                return batch.records()[sequence - batch.first_sequence]
        return None

    # -- room -------------------------------------------------------------

    async def make_room(self, wanted_bytes: int) -> bool:
        """Whether so many more (compressed) bytes fit into `max_size`, after doing what may be.

        Delivered records that are only kept for replay go first; then sinks that said drop_oldest
        give up their oldest. An empty buffer takes anything.
        """
        while self._oldest < self._end and self.stats.size_bytes + wanted_bytes > self._max_size:
            if not await self._delete(received_before=float("inf")) and not await self._drop():
                return False
        return True

    async def reclaim(self) -> bool:
        """On a full disk: free what is kept for replay only. Whether anything was freed."""
        passed = min((p.next_sequence for p in self._places.values()), default=self._end)
        try:
            async with self._writing:
                if passed > self._oldest:
                    await _in_thread(self._reserve.release)
                await _in_thread(self._store.shrink_log)
            freed = await self._delete(received_before=float("inf")) > 0
            if freed:
                # With the pages cut off that were freed, there is room for the reserve again.
                async with self._writing:
                    await _in_thread(self._store.shrink_log)
                    await _in_thread(partial(self._reserve.hold, again=True))
        except BufferFull:
            return False  # no room even for that: the caller waits
        return freed

    async def _delete(self, received_before: float) -> int:
        async with self._writing:
            passed = min((p.next_sequence for p in self._places.values()), default=self._end)
            freed, oldest = await _in_thread(self._delete_and_look, passed, received_before)
            if freed:
                self.stats.size_bytes -= freed
                self._note_oldest(oldest)
        return freed

    def _delete_and_look(
        self, before: int, received_before: float
    ) -> tuple[int, tuple[int, float] | None]:
        return self._store.delete(before, received_before), self._store.oldest()

    async def _drop(self) -> bool:
        """Move sinks that said drop_oldest past the oldest rows; False if another holds them."""
        end = await _in_thread(self._store.end_of_oldest, _DROP_ROWS)
        if end is None:
            return False
        holders = [p for p in self._places.values() if p.next_sequence < end]
        if not holders or not all(p.drop_oldest for p in holders):
            return False
        for place in holders:
            place.dropped += end - place.next_sequence
            self.advance(place.name, end)
        return True

    def _note_oldest(self, found: tuple[int, float] | None) -> None:
        self._oldest = found[0] if found else self._end
        self.stats.oldest_received_at = found[1] if found else None

    async def received_at(self, sequence: int) -> float | None:
        """When that record was received (seconds since the epoch); None if it is not kept."""
        return await _in_thread(self._store.received_at, sequence)

    # -- tasks ------------------------------------------------------------

    async def run(self) -> None:
        """Store cursors as they move and delete what is old, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._store_cursors)
            nursery.start_soon(self._retain)

    async def _store_cursors(self) -> None:
        while True:
            await self._dirty_event.wait()
            self._dirty_event = trio.Event()
            try:
                await self.flush()
            except BufferFull:
                self._dirty_event.set()
                await trio.sleep(_FULL_PAUSE_S)
            await trio.sleep(_CURSOR_PAUSE_S)

    async def flush(self) -> None:
        """Store the cursors as they are now."""
        async with self._writing:
            cursors, self._dirty = self._dirty, {}
            if cursors:
                with trio.CancelScope(shield=True):
                    try:
                        await _in_thread(self._store.save_cursors, cursors)
                    except BaseException:
                        self._dirty = {**cursors, **self._dirty}
                        raise

    async def _retain(self) -> None:
        while True:
            # A full disk stops deleting too; `reclaim` makes room, or an operator.
            with suppress(BufferFull):
                while await self._delete(received_before=time.time() - self._keep_s):
                    pass
            if self.stats.size_bytes > RESERVE_BYTES:  # else there is less to give up than it takes
                await _in_thread(self._reserve.hold)
            await trio.sleep(_RETENTION_PAUSE_S)


def _first(batch: Batch) -> int:
    return batch.first_sequence


async def _in_thread(work: Callable[[*_Ts], _T], *args: *_Ts) -> _T:
    # Not abandoned when cancelled: the thread holds a connection.
    return await trio.to_thread.run_sync(work, *args)
