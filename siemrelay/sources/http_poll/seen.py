"""The items that have come before, remembered with the position so that a restart repeats none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

# Marks of one chunk: it is written again with each page until it is full.
_CHUNK_MARKS: Final = 500


class _Chunk(msgspec.Struct):
    marks: list[str]
    latest_ms: int


class SeenItems:
    """The marks of at most `most` items, in chunks that are stored one by one.

    A page writes the chunk that takes its marks, and not all that are remembered.
    """

    def __init__(self, stored: Mapping[int, Mapping[str, Any]], most: int) -> None:
        """`stored` are the values that `changes` returned, by their numbers."""
        self._most = most
        self._chunks = {
            number: _Chunk(list(value["marks"]), int(value["latest_ms"]))
            for number, value in sorted(stored.items())
        }
        self._of = {mark: n for n, chunk in self._chunks.items() for mark in chunk.marks}
        self._changed = set[int]()
        self._recent = set[str]()
        self._newest = max(self._chunks, default=0)
        self.forgotten_ms = 0
        """Items up to that time were forgotten for want of room."""

    def __len__(self) -> int:
        return len(self._of)

    def new(self, marks: Sequence[str]) -> list[bool]:
        """Which of a page's marks have not come before, its own repetitions included."""
        within = set[str]()
        found = []
        for mark in marks:
            found.append(mark not in self._of and mark not in within)
            within.add(mark)
        if len(self._recent) < self._most:
            self._recent |= within
        return found

    def add(self, marks: Iterable[str], latest_ms: int) -> None:
        """Remember marks; the newest of their items has that time."""
        for mark in marks:
            if mark in self._of:
                continue
            chunk = self._chunks.get(self._newest)
            if chunk is None or len(chunk.marks) >= _CHUNK_MARKS:
                self._newest += 1
                chunk = self._chunks[self._newest] = _Chunk([], latest_ms)
            chunk.marks.append(mark)
            chunk.latest_ms = max(chunk.latest_ms, latest_ms)
            self._of[mark] = self._newest
            self._changed.add(self._newest)
        while len(self._of) > self._most and len(self._chunks) > 1:
            self._drop_oldest()

    def forget_before(self, moment_ms: int) -> None:
        """Forget the chunks all of whose items are older than that."""
        for number in [n for n, chunk in self._chunks.items() if chunk.latest_ms < moment_ms]:
            self._drop(number)

    def clear(self) -> None:
        """Forget everything."""
        for number in list(self._chunks):
            self._drop(number)

    def poll_ended(self) -> None:
        """Marks that this poll has seen may be dropped first from now on."""
        self._recent.clear()

    @property
    def has_changed(self) -> bool:
        """Whether `changes` has something to store."""
        return bool(self._changed)

    def changes(self) -> dict[int, dict[str, Any] | None]:
        """The values to store since the last call, by their numbers; None deletes one."""
        changed = {
            number: msgspec.to_builtins(self._chunks[number]) if number in self._chunks else None
            for number in sorted(self._changed)
        }
        self._changed.clear()
        return changed

    def _drop_oldest(self) -> None:
        """Drop the chunk of the oldest items; an API may give the newest ones first."""
        number = min(self._chunks, key=lambda each: (self._chunks[each].latest_ms, each))
        chunk = self._chunks[number]
        self._drop(number)
        # What this poll has seen will be on the next one's pages, too: it moves to the front.
        still = [mark for mark in chunk.marks if mark in self._recent]
        if len(still) < len(chunk.marks):
            self.add(still, chunk.latest_ms)
        else:
            self.forgotten_ms = max(self.forgotten_ms, chunk.latest_ms)

    def _drop(self, number: int) -> None:
        for mark in self._chunks.pop(number).marks:
            del self._of[mark]
        self._changed.add(number)
