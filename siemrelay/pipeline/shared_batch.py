"""Stored batches that several sinks read, and what has been made of them for these."""

from __future__ import annotations

import math
from typing import Final, Generic, TypeVar

import trio

from siemrelay.core.event import Batch, DecodedBatch
from siemrelay.net.tasks import Broadcast
from siemrelay.pipeline.formatting.formatter import replaced_of
from siemrelay.pipeline.formatting.messages import (
    FormattedBatch,
    GroupMessages,
    InternalError,
    SinkMessages,
    log_errors,
    messages_of,
)

OVERDUE_S: Final = 5.0
"""A worker takes milliseconds for a batch, 3 s for the longest record. What is not answered by then
the relay formats itself: sinks do not wait until a worker that hangs is replaced."""

# Sinks share while the fastest is at most this far ahead of the slowest; one that is further behind
# formats for itself, and the others go on sharing.
KEPT_BYTES: Final = 8 * 1024 * 1024
_KEPT_BATCHES: Final = 64

# A decoded batch takes about so many times the bytes of its records, with these.
_DECODED: Final = 4

# A batch that a worker has counts at most so many times its bytes, or those of ten formats would be
# formatted one by one.
_MOST_ASKED: Final = 4

Reader = TypeVar("Reader")


class SharedBatch(Generic[Reader]):
    """A batch, what has been made of it, and the readers that have yet to take it."""

    def __init__(self, batch: Batch, waiting: set[Reader]) -> None:
        self.first_sequence, self.next_sequence = batch.first_sequence, batch.next_sequence
        self.waiting = waiting
        self.groups: dict[int, GroupMessages] = {}
        self._found: dict[tuple[int, int], SinkMessages] = {}
        self.decoded: DecodedBatch | None = None
        """The events, until every group that is waited for has its messages."""
        self.fields = frozenset[str]()  # those that the events have
        self._asked_bytes, self._overdue_at, self._answered = 0, math.inf, Broadcast()
        self.left_to_the_relay = False
        """No worker could format it in time: none is asked again."""
        self.errors: list[InternalError] = []
        """Bugs found in it that are not logged yet."""
        self._unparsed, self._replaced = 0, list[int]()

    @property
    def size_bytes(self) -> int:
        """About the memory that it takes."""
        decoded = 0 if self.decoded is None else _DECODED * len(self.decoded.batch.payload)
        return self._asked_bytes + decoded + sum(made.size_bytes for made in self.groups.values())

    @property
    def asked(self) -> bool:
        """Whether a worker formats it now."""
        return self._asked_bytes > 0

    def ask(self, batch: Batch, groups: int) -> None:
        """Note that a worker was asked for so many groups' messages."""
        # For these; the events are the worker's. Counted with them, the batches of a few workers
        # displaced each other, and were formatted again.
        self._asked_bytes = min(groups, _MOST_ASKED) * len(batch.payload)
        self._overdue_at = trio.current_time() + OVERDUE_S

    def answer(self, formatted: FormattedBatch | None) -> None:
        """Add what the worker has made; None if it could not. Too late it changes nothing."""
        if not self.asked:
            return
        self._asked_bytes, self.left_to_the_relay = 0, formatted is None
        if formatted is not None:
            self._unparsed, self._replaced = formatted.unparsed, formatted.replaced
            self.groups |= formatted.groups
            log_errors(formatted.errors)
        self._answered.wake_all()

    async def until_answered(self) -> None:
        """Wait for the worker; when its answer is overdue the batch is left to the relay."""
        with trio.move_on_at(self._overdue_at):
            while self.asked:
                await self._answered.wait()
        self.answer(None)

    def add(self, group: int, made: GroupMessages) -> None:
        """Add a group's messages."""
        self.groups[group] = made
        if self.decoded is not None:
            self._unparsed, self._replaced = self.decoded.unparsed, replaced_of(self.decoded)

    def messages(self, place: tuple[int, int]) -> SinkMessages | None:
        """The messages for a sink at that place (group, filter); None if they are not made."""
        if (found := self._found.get(place)) is None:
            group, view = place
            if (made := self.groups.get(group)) is None or view not in made.views:
                return None
            found = messages_of(made, view, self._unparsed, self._replaced)
            self._found[place] = found
        return found


class KeptBatches(dict[int, SharedBatch[Reader]]):
    """The batches that readers near each other share, by their first record, as they were kept.

    Bounded: the earliest ones are forgotten first.
    """

    def __init__(self) -> None:
        super().__init__()
        self._by_end: dict[int, SharedBatch[Reader]] = {}

    @property
    def size_bytes(self) -> int:
        """About the memory that they take."""
        return sum(kept.size_bytes for kept in self.values())

    def reach(self, batch: Batch) -> int:
        """The record from which on kept batches lead to this one, without a gap."""
        start = batch.first_sequence
        while (before := self._by_end.get(start)) is not None:
            start = before.first_sequence
        return start

    def keep(self, kept: SharedBatch[Reader]) -> None:
        """Keep that one, too, or with what it takes now."""
        self[kept.first_sequence] = self._by_end[kept.next_sequence] = kept
        while len(self) > 1 and (len(self) > _KEPT_BATCHES or self.size_bytes > KEPT_BYTES):
            self._drop(next(iter(self.values())))

    def pass_by(self, kept: SharedBatch[Reader], reader: Reader) -> None:
        """Note that the reader waits for it no more; after the last one it is forgotten."""
        kept.waiting.discard(reader)
        if not kept.waiting:
            self._drop(kept)

    def _drop(self, kept: SharedBatch[Reader]) -> None:
        del self[kept.first_sequence], self._by_end[kept.next_sequence]
