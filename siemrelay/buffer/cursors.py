"""The cursors of all sinks: advanced in memory at once, written to disk soon after.

`cursor_flusher.py` says when, `retention.py` moves those that give way on a full disk.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import msgspec
import structlog
import trio

from siemrelay.buffer.rows import StoredCursor
from siemrelay.buffer.sink_cursor import Outcome, SinkCursor, SinkPolicy
from siemrelay.net.clock import Alarm
from siemrelay.net.tasks import Broadcast
from siemrelay.proof.stream import StreamState
from siemrelay.telemetry.stats import SinkCounts

_log = structlog.get_logger()

# Moved cursors that have passed so many records are stored with the next records, or alone so soon:
# a sink that catches up while nothing comes in would repeat as many as it can take until the next
# second.
_MANY_RECORDS: Final = 200
_SHORT_PAUSE_S: Final = 0.02


class KeptRange(msgspec.Struct):
    """The sequence numbers that are kept: from `oldest` to before `end`."""

    oldest: int
    end: int


class SinkCursors:
    """The cursors of all sinks. Invariant: `kept.oldest` <= every cursor <= `kept.end`."""

    def __init__(self, known: Mapping[str, StoredCursor], kept: KeptRange) -> None:
        """`known` are the cursors on disk."""
        self._known, self._kept = known, kept
        self._cursors: dict[str, SinkCursor] = {}
        self._unstored: set[str] = set()
        self._unstored_since = math.inf
        self._passed_unstored, self._many_due = 0, Alarm()
        self._renamed: dict[str, str] = {}
        self._moved = Broadcast()

    def choose(self, sinks: Mapping[str, SinkPolicy], renamed: Mapping[str, str]) -> list[str]:
        """Make these the sinks, each with its policy; those that are sinks already keep moving.

        `renamed` are old names by new ones: each new one has the place of the old. Returns the
        names in `known` that are gone.
        """
        known = {renamed.get(name, name): cursor for name, cursor in self._known.items()}
        for old, new in renamed.items():
            if (present := self._cursors.pop(old, None)) is not None:
                self._unstored = {new if name == old else name for name in self._unstored}
                self._cursors[new] = SinkCursor(
                    new, present.next_sequence, present.first_sequence, sinks[new],
                    present.counts, present.stream,
                )  # fmt: skip
        # A name that a sink has again leads to that sink, and to nobody once it is gone.
        former = {**self._renamed, **renamed}
        self._renamed = {old: new for old, new in former.items() if old not in sinks}
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
        before = dict(self._cursors), self._known, self._renamed
        unstored = set(self._unstored)
        policies = {name: cursor.policy for name, cursor in self._cursors.items()}
        self._known = {}
        try:
            self.choose(sinks, renamed)
            yield
        except BaseException:
            self._cursors, self._known, self._renamed = before
            # Other sinks go on meanwhile, and what has moved waits to be stored.
            self._unstored = unstored | (self._unstored & self._cursors.keys())
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

    def __iter__(self) -> Iterator[SinkCursor]:
        return iter(self._cursors.values())

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
        if next_sequence > before:
            few = self._passed_unstored < _MANY_RECORDS
            self._passed_unstored += next_sequence - before
            if few and self._passed_unstored >= _MANY_RECORDS:
                self._many_due.set(trio.current_time() + _SHORT_PAUSE_S)
            self._note_moved(cursor)
        elif outcome.confirmed is not None:
            self._note_moved(cursor)

    def give_up(self, cursor: SinkCursor, end: int) -> None:
        """Move the sink past its records before `end`, and count them as dropped."""
        cursor.counts.dropped += end - cursor.next_sequence
        cursor.next_sequence = end
        self._note_moved(cursor)

    def _note_moved(self, cursor: SinkCursor) -> None:
        if not self._unstored:
            self._unstored_since = trio.current_time()
        self._unstored.add(cursor.name)
        self._moved.wake_all()

    async def wait_moved(self) -> None:
        """Wait until some cursor moves."""
        await self._moved.wait()

    def holders(self) -> list[str]:
        """The sinks that intake waits for in a full buffer: of those that give up nothing, the
        last; none when all of these are at the end."""
        waited = [each for each in self._cursors.values() if not each.policy.gives_way]
        lowest = min((each.next_sequence for each in waited), default=self._kept.end)
        return [each.name for each in waited if each.next_sequence == lowest < self._kept.end]

    # -- storing ----------------------------------------------------------

    async def wait_unstored(self) -> None:
        """Wait until there are moved cursors that are not stored."""
        while not self._unstored:
            await self._moved.wait()

    async def wait_many(self) -> None:
        """Wait until moved cursors have passed many records, and nothing has stored them soon."""
        await self._many_due.wait()
        self._many_due.set(math.inf)

    def waited(self, seconds: float) -> bool:
        """Whether moved cursors wait for so long to be stored, or have passed many records."""
        if not self._unstored:
            return False
        is_many = self._passed_unstored >= _MANY_RECORDS
        return is_many or trio.current_time() >= self._unstored_since + seconds

    def take_unstored(self) -> dict[str, StoredCursor]:
        """The moved cursors, by sink, to be stored now; `put_back` those that were not."""
        names, self._unstored = self._unstored, set()
        self._passed_unstored = 0
        self._many_due.set(math.inf)
        return {name: self._cursors[name].stored() for name in names}

    def put_back(self, sinks: Iterable[str]) -> None:
        """The cursors of these sinks could not be stored: they wait again."""
        self._unstored.update(sinks)

    @contextmanager
    def being_stored(self) -> Iterator[dict[str, StoredCursor]]:
        """The moved cursors, for the block to store. If the block fails, they stay unstored."""
        cursors = self.take_unstored()
        try:
            yield cursors
        except BaseException:
            self.put_back(cursors)
            raise
