"""Where each sink is: its cursor, in memory at once and on disk within moments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec
import structlog
import trio

_log = structlog.get_logger()


class Extent(msgspec.Struct):
    """The sequence numbers that are kept: from `oldest` to before `end`."""

    oldest: int
    end: int


class SinkPlace(msgspec.Struct):
    """One sink's place: `next_sequence` is the first record that is not settled for it."""

    name: str
    next_sequence: int
    drop_oldest: bool
    dropped: int = 0


class Places:
    """The cursors of all sinks. Invariant: `extent.oldest` <= every cursor <= `extent.end`."""

    def __init__(self, known: Mapping[str, int], extent: Extent) -> None:
        """`known` are the cursors on disk."""
        self._known, self._extent = known, extent
        self._places: dict[str, SinkPlace] = {}
        self._unstored: dict[str, int] = {}
        self._moved = trio.Event()
        self.unstored = trio.Event()
        """Set while cursors have moved that are not on disk; replaced by who stores them."""

    def choose(self, sinks: Mapping[str, tuple[bool, bool]]) -> list[str]:
        """Make these the sinks: name → (drop_oldest, start at the oldest record if new).

        Returns those of `known` that are none of them any more.
        """
        extent = self._extent
        for name, (drop_oldest, from_oldest) in sinks.items():
            start = self._known.get(name, extent.oldest if from_oldest else extent.end)
            start = min(max(start, extent.oldest), extent.end)
            self._places[name] = SinkPlace(name, start, drop_oldest)
        return sorted(self._known.keys() - sinks.keys())

    def __getitem__(self, sink: str) -> SinkPlace:
        return self._places[sink]

    def cursors(self) -> dict[str, int]:
        """All of them, by sink."""
        return {place.name: place.next_sequence for place in self._places.values()}

    def passed(self) -> int:
        """Every record before this is settled for every sink."""
        return min(self.cursors().values(), default=self._extent.end)

    def advance(self, sink: str, next_sequence: int) -> None:
        """Settle every record before `next_sequence`; a cursor never moves back."""
        place = self._places[sink]
        assert next_sequence <= self._extent.end, (next_sequence, self._extent)
        if next_sequence > place.next_sequence:
            place.next_sequence = self._unstored[sink] = next_sequence
            self.unstored.set()
            self._moved.set()
            self._moved = trio.Event()

    async def wait_moved(self) -> None:
        """Wait until some cursor moves."""
        await self._moved.wait()

    def drop(self, end: int) -> bool:
        """Move sinks that said drop_oldest past the records before `end`, and count them.

        False, and nothing moved, when there are none, or when another sink holds those records too.
        """
        holders = [place for place in self._places.values() if place.next_sequence < end]
        if not holders or not all(place.drop_oldest for place in holders):
            return False
        for place in holders:
            if not place.dropped:
                # Once a process, as it may go on for days; the metric has the number.
                _log.error("the buffer is full: a sink loses its oldest records", sink=place.name,
                           first_sequence=place.next_sequence,
                           advice="as `when_full: drop_oldest` says; see why it lags")  # fmt: skip
            place.dropped += end - place.next_sequence
            self.advance(place.name, end)
        return True

    @contextmanager
    def being_stored(self) -> Iterator[dict[str, int]]:
        """The cursors that are not on disk; if the block fails, they still are not."""
        cursors, self._unstored = self._unstored, {}
        try:
            yield cursors
        except BaseException:
            self._unstored = {**cursors, **self._unstored}
            raise
