"""The cursors of the sinks: advanced in memory at once, written to disk soon after."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

import msgspec
import structlog
import trio

from siemrelay.buffer.reserve import EmergencyReserve
from siemrelay.buffer.rows import StoredCursor
from siemrelay.buffer.sqlite.store import Store
from siemrelay.buffer.threads import WriterThread
from siemrelay.core.errors import BufferFull
from siemrelay.net.clock import sleep_until
from siemrelay.net.tasks import Broadcast, Mutex
from siemrelay.proof.stream import Confirmed, StreamState
from siemrelay.telemetry.stats import SinkCounts

_log = structlog.get_logger()

# Moved cursors are stored with the next records once they have waited for so long, which spares
# most commits at ordinary load a page, or alone if none come in time. After a crash of the process,
# deliveries of the longer time are repeated, and those in flight.
_WITH_RECORDS_S: Final = 0.1
_PAUSE_S: Final = 0.25

# Cursors that have passed so many records are stored sooner: a sink that catches up while nothing
# comes in would repeat as many as it can take in that time.
_MANY_RECORDS: Final = 200
_SHORT_PAUSE_S: Final = 0.02

# A full disk is tried again this often.
_FULL_PAUSE_S: Final = 1.0

_NO_CURSORS: Final[AbstractContextManager[dict[str, StoredCursor]]] = nullcontext({})

# By whether the sink is enabled.
_DROPPED_ADVICE: Final = {
    True: "`when_full: drop_oldest` does this; find out why the sink lags",
    False: "it is disabled, paused or no longer configured, and such a sink does not make intake "
    "wait: enable or resume it, or discard its records (`--discard-backlog` of `siemrelay reload`)",
}


class KeptRange(msgspec.Struct):
    """The sequence numbers that are kept: from `oldest` to before `end`."""

    oldest: int
    end: int


class SinkPolicy(msgspec.Struct, frozen=True):
    """How a sink's records are treated, from the configuration.

    `drop_oldest`: they give way when the buffer is full; otherwise intake waits for the sink.
    `start_at_oldest`: a new sink begins at the oldest record kept, otherwise at the next one.
    `enabled`: a sink that is disabled or paused keeps its cursor while there is room, and never
    makes intake wait.
    """

    drop_oldest: bool = False
    start_at_oldest: bool = True
    enabled: bool = True


class Outcome(msgspec.Struct, frozen=True):
    """What became of the records that a cursor passes; `confirmed_at` 0 if no receiver had a part.

    See `SinkCounts` for the names. `confirmed` is what became of the messages of a sealed stream.
    """

    delivered: int = 0
    duplicates: int = 0
    filtered: int = 0
    refused: int = 0
    confirmed_at: float = 0.0
    confirmed: Confirmed | None = None


class SinkCursor(msgspec.Struct):
    """One sink's cursor: `next_sequence` is the first record that is not settled for it.

    Invariant: `counts.settled()` == `next_sequence` - `first_sequence`, where the sink began.
    """

    name: str
    next_sequence: int
    first_sequence: int
    policy: SinkPolicy
    counts: SinkCounts
    stream: StreamState | None = None

    def stored(self) -> StoredCursor:
        """As it is kept on disk."""
        rest: list[Any] = [*msgspec.structs.astuple(self.counts)]
        rest.append(self.stream.written() if self.stream is not None else "")
        return StoredCursor(self.next_sequence, self.first_sequence, *rest)

    def after(self, next_sequence: int, outcome: Outcome) -> StoredCursor:
        """As it will be kept on disk once it has passed these records."""
        copy = msgspec.structs.replace(self, counts=msgspec.structs.replace(self.counts))
        copy.pass_records(next_sequence, outcome)
        return copy.stored()

    def pass_records(self, next_sequence: int, outcome: Outcome) -> int:
        """Move on to `next_sequence` and count; returns how many records on the way are missing.

        Records that were given up while they were in flight are counted as dropped already, and
        not again by what became of them later.
        """
        counts = self.counts
        counts.last_success_at = outcome.confirmed_at or counts.last_success_at
        left = next_sequence - self.next_sequence
        self._pass_in_stream(next_sequence, outcome)
        if left <= 0:
            return 0
        self.next_sequence = next_sequence
        # The earliest records were given up; the least remarkable outcomes give way.
        counts.refused += (refused := min(outcome.refused, left))
        left -= refused
        counts.duplicates += (duplicates := min(outcome.duplicates, left))
        left -= duplicates
        counts.filtered += (filtered := min(outcome.filtered, left))
        left -= filtered
        counts.delivered += (delivered := min(outcome.delivered, left))
        left -= delivered
        counts.lost += left
        return left

    def _pass_in_stream(self, next_sequence: int, outcome: Outcome) -> None:
        stream = self.stream
        if stream is None or (outcome.delivered and outcome.confirmed is None):
            return  # what is delivered without a number parts stream and cursor
        if outcome.confirmed is not None:
            stream = stream.confirmed(outcome.confirmed)
        elif stream.next_sequence != self.next_sequence:
            return
        if next_sequence > self.next_sequence:
            stream = msgspec.structs.replace(stream, next_sequence=next_sequence)
        self.stream = stream


class SinkCursors:
    """The cursors of all sinks. Invariant: `kept.oldest` <= every cursor <= `kept.end`."""

    def __init__(self, known: Mapping[str, StoredCursor], kept: KeptRange) -> None:
        """`known` are the cursors on disk."""
        self._known, self._kept = known, kept
        self._cursors: dict[str, SinkCursor] = {}
        self._unstored, self._unstored_since = set[str](), math.inf
        self._passed_unstored, self._many = 0, Broadcast()
        self._logged_drops = set[str]()
        self._renamed: dict[str, str] = {}
        self._moved = Broadcast()

    def choose(self, sinks: Mapping[str, SinkPolicy], renamed: Mapping[str, str]) -> list[str]:
        """Make these the sinks, each with its policy; those that are sinks already keep moving.

        `renamed` are old names by new ones: each new one has the place of the old. Returns the
        names in `known` that are gone.
        """
        known = {renamed.get(name, name): cursor for name, cursor in self._known.items()}
        for old, new in renamed.items():
            self._renamed[old] = new
            if (present := self._cursors.pop(old, None)) is not None:
                self._unstored = {new if name == old else name for name in self._unstored}
                self._cursors[new] = SinkCursor(
                    new, present.next_sequence, present.first_sequence, sinks[new],
                    present.counts, present.stream,
                )  # fmt: skip
        for name in self._cursors.keys() - sinks.keys():
            del self._cursors[name]
            self._unstored.discard(name)
        for name, policy in sinks.items():
            if (present := self._cursors.get(name)) is not None:
                present.policy = policy
                continue
            if (stored := known.get(name)) is None:
                start = self._kept.oldest if policy.start_at_oldest else self._kept.end
                stored = StoredCursor(start, start)
            next_sequence, first_sequence, *counts, stream = msgspec.structs.astuple(stored)
            self._cursors[name] = SinkCursor(
                name, next_sequence, first_sequence, policy, SinkCounts(*counts),
                StreamState.read(stream),
            )  # fmt: skip
        return sorted(known.keys() - sinks.keys())

    def set_enabled(self, sink: str, *, enabled: bool) -> None:
        """Change that part of the sink's policy."""
        cursor = self._cursors[sink]
        cursor.policy = msgspec.structs.replace(cursor.policy, enabled=enabled)
        self._moved.wake_all()  # tasks may wait for the sink

    @contextmanager
    def changing(
        self, sinks: Mapping[str, SinkPolicy], renamed: Mapping[str, str]
    ) -> Iterator[None]:
        """`choose` while the relay runs; if the block fails, the sinks are as they were.

        A sink that is added starts anew, even if it was removed earlier in this process.
        """
        before = dict(self._cursors), self._known, set(self._unstored)
        policies = {name: cursor.policy for name, cursor in self._cursors.items()}
        self._known = {}
        try:
            self.choose(sinks, renamed)
            yield
        except BaseException:
            self._cursors, self._known, self._unstored = before
            for name, policy in policies.items():
                self._cursors[name].policy = policy
            raise
        # Tasks may wait for the cursor of a sink that is gone.
        self._moved.wake_all()

    def get(self, sink: str) -> SinkCursor | None:
        """The sink's cursor, under its new name if it has one; None if it is not a sink now."""
        if sink not in self._cursors and sink in self._renamed:
            return self.get(self._renamed[sink])
        return self._cursors.get(sink)

    def __getitem__(self, sink: str) -> SinkCursor:
        return self._cursors[sink]

    def stored(self) -> dict[str, StoredCursor]:
        """All of them, by sink, as they are kept on disk."""
        return {cursor.name: cursor.stored() for cursor in self._cursors.values()}

    def note_commands(self, found: Mapping[str, StoredCursor | None]) -> None:
        """Take over what commands beside the relay have counted on disk."""
        for name, stored in found.items():
            cursor = self._cursors.get(name)
            if cursor is not None and stored is not None:
                cursor.counts.retried = stored.retried
                cursor.counts.replayed = stored.replayed

    def passed(self) -> int:
        """Every record before this is settled for every sink."""
        cursors = self._cursors.values()
        return min((cursor.next_sequence for cursor in cursors), default=self._kept.end)

    def advance(self, sink: str, next_sequence: int, outcome: Outcome) -> None:
        """Settle every record before `next_sequence`; a cursor never moves back."""
        cursor = self._cursors[sink]
        assert next_sequence <= self._kept.end, (next_sequence, self._kept)
        before = cursor.next_sequence
        if missing := cursor.pass_records(next_sequence, outcome):
            _log.error("stored records are missing on disk", sink=sink, records=missing,
                       from_sequence=before, to_sequence=next_sequence - 1,
                       advice="they were acknowledged and are gone; check the disk, and run "
                       "`siemrelay buffer check`")  # fmt: skip
        if outcome.confirmed is not None:
            self._moved_on(cursor)
        if next_sequence > before:
            self._passed_unstored += next_sequence - before
            self._moved_on(cursor)
            if self._passed_unstored >= _MANY_RECORDS:
                self._many.wake_all()

    def _moved_on(self, cursor: SinkCursor) -> None:
        if not self._unstored:
            self._unstored_since = trio.current_time()
        self._unstored.add(cursor.name)
        self._moved.wake_all()

    async def wait_moved(self) -> None:
        """Wait until some cursor moves."""
        await self._moved.wait()

    def waited(self, seconds: float) -> bool:
        """Whether moved cursors wait for so long to be stored, or have passed many records."""
        if not self._unstored:
            return False
        is_many = self._passed_unstored >= _MANY_RECORDS
        return is_many or trio.current_time() >= self._unstored_since + seconds

    async def wait_until_late(self) -> None:
        """Wait until moved cursors are to be stored alone if no records have taken them along."""
        while not self._unstored:
            await self._moved.wait()
        await sleep_until(self._unstored_since + _PAUSE_S)

    async def wait_until_many(self) -> None:
        """As `wait_until_late`, for cursors that pass many records meanwhile."""
        while self._passed_unstored < _MANY_RECORDS:
            await self._many.wait()
        await sleep_until(trio.current_time() + _SHORT_PAUSE_S)

    def holders(self) -> list[str]:
        """The sinks that intake waits for in a full buffer: of those that give up nothing, the
        last; none when all of these are at the end."""
        waited = [each for each in self._cursors.values() if not _gives_way(each.policy)]
        lowest = min((each.next_sequence for each in waited), default=self._kept.end)
        return [each.name for each in waited if each.next_sequence == lowest < self._kept.end]

    def drop(self, row_ends: Sequence[int]) -> bool:
        """Move sinks past the oldest rows, which end before these numbers, and count the records.

        Disabled sinks give way first, then those with `drop_oldest` too, and only as far as rows
        become free: not beyond the first record of a sink that makes intake wait. Returns whether
        any row became free.
        """
        return self._drop(row_ends, _is_disabled) or self._drop(row_ends, _gives_way)

    def _drop(self, row_ends: Sequence[int], gives_way: Callable[[SinkPolicy], bool]) -> bool:
        cursors = self._cursors.values()
        kept = [each.next_sequence for each in cursors if not gives_way(each.policy)]
        limit = min(kept, default=self._kept.end)
        end = max((row_end for row_end in row_ends if row_end <= limit), default=0)
        behind = [each for each in cursors if each.next_sequence < end]
        for cursor in behind:
            if cursor.name not in self._logged_drops:
                self._logged_drops.add(cursor.name)
                # Once a process, as it may go on for days; the metric has the number.
                _log.error("the buffer is full: a sink loses its oldest records", sink=cursor.name,
                           first_sequence=cursor.next_sequence,
                           advice=_DROPPED_ADVICE[cursor.policy.enabled])  # fmt: skip
            cursor.counts.dropped += end - cursor.next_sequence
            cursor.next_sequence = end
            self._moved_on(cursor)
        return bool(behind)

    def with_records(self) -> AbstractContextManager[dict[str, StoredCursor]]:
        """As `being_stored`, of the cursors that are to be stored with the next records."""
        return self.being_stored() if self.waited(_WITH_RECORDS_S) else _NO_CURSORS

    @contextmanager
    def being_stored(self) -> Iterator[dict[str, StoredCursor]]:
        """The moved cursors, for the block to store. If the block fails, they stay unstored."""
        names, self._unstored = self._unstored, set()
        passed, self._passed_unstored = self._passed_unstored, 0
        try:
            yield {name: self._cursors[name].stored() for name in names}
        except BaseException:
            self._unstored |= names
            self._passed_unstored += passed
            raise


def _is_disabled(policy: SinkPolicy) -> bool:
    return not policy.enabled


def _gives_way(policy: SinkPolicy) -> bool:
    return policy.drop_oldest or not policy.enabled


class CursorFlusher:
    """Writes moved cursors to the store, holding the lock `writing`."""

    def __init__(
        self, store: Store, cursors: SinkCursors, writing: Mutex, writer: WriterThread,
        reserve: EmergencyReserve,
    ) -> None:  # fmt: skip
        self._store, self._cursors, self._writing = store, cursors, writing
        self._writer, self._reserve = writer, reserve

    async def run(self, reclaim: Callable[[], Awaitable[bool]]) -> None:
        """Store cursors as they move, until cancelled. `reclaim` makes room on a full disk."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._store_after, self._cursors.wait_until_late, reclaim)
            nursery.start_soon(self._store_after, self._cursors.wait_until_many, reclaim)

    async def _store_after(
        self, wait: Callable[[], Awaitable[None]], reclaim: Callable[[], Awaitable[bool]]
    ) -> None:
        while True:
            await wait()
            if not self._cursors.waited(_PAUSE_S):
                continue  # stored with records
            try:
                await self.flush()
            except BufferFull:
                if not await reclaim():
                    await trio.sleep(_FULL_PAUSE_S)

    async def flush(self) -> None:
        """Store the moved cursors now. Raises BufferFull."""
        async with self._writing:
            with self._cursors.being_stored() as cursors:
                if cursors:
                    await self._writer.run(self._store.save_cursors, cursors)

    def leave(self) -> None:
        """Store the moved cursors for the last time; on a full disk in the room of the reserve."""
        with self._cursors.being_stored() as cursors:
            try:
                try:
                    self._store.save_cursors(cursors)
                except BufferFull:
                    self._reserve.release()
                    self._store.save_cursors(cursors)
            except BufferFull as error:
                _log.error("cursors are not stored: the latest deliveries will be repeated",
                           reason=str(error), advice="make room under state_dir")  # fmt: skip
