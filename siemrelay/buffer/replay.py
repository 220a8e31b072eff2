"""Delivers a range of stored records, or dead letters, to one sink again, beside the running relay.

No cursor on disk moves. What the receiver refuses becomes a dead letter, or stays one.
"""

from __future__ import annotations

from collections.abc import Set
from functools import partial
from typing import Final

import trio

from siemrelay.buffer.dead_letters import DeadLetter
from siemrelay.buffer.disk_reads import READ_BYTES
from siemrelay.buffer.sink_cursor import Outcome, SinkCursor, SinkPolicy
from siemrelay.buffer.sqlite.store import Store
from siemrelay.buffer.threads import in_thread
from siemrelay.core.event import Batch
from siemrelay.telemetry.stats import SinkCounts

# Dead letters read at a time: each has a record and a message, of megabytes at the worst.
_LETTERS: Final = 64


class Replay:
    """Records from `first` to before `end`: see `contract.Deliverable`. `done` is set at the end.

    Records that are no longer stored are skipped.
    """

    def __init__(self, store: Store, sink: str, first: int, end: int) -> None:
        self._store, self._end = store, end
        self._cursor = SinkCursor(sink, first, first, SinkPolicy(), SinkCounts())
        self._counted = 0
        self.done = trio.Event()
        if first >= end:
            self.done.set()

    @property
    def end(self) -> int:
        """See `contract.Deliverable`."""
        return self._end

    def cursor(self, sink: str) -> SinkCursor:
        """See `contract.Deliverable`."""
        return self._cursor

    def advance(self, sink: str, next_sequence: int, outcome: Outcome) -> None:
        """See `contract.Deliverable`; in memory only."""
        self._cursor.pass_records(next_sequence, outcome)
        if self._cursor.next_sequence >= self._end:
            self.done.set()

    async def read(self, sequence: int) -> list[Batch]:
        """See `contract.Deliverable`; at the end it waits for ever: `done` is set there."""
        if sequence >= self._end:
            await trio.sleep_forever()
        # No row is left: an empty batch at the end moves the cursor there.
        return await self._found(sequence) or [Batch(self._end, 0, "", 0.0, b"")]

    async def _found(self, sequence: int) -> list[Batch]:
        batches = await in_thread(self._store.read, sequence, self._end, READ_BYTES)
        if batches and batches[-1].next_sequence > self._end:
            batches[-1:] = batches[-1].alone(range(self._end))
        return batches

    async def records(self, wanted: Set[int]) -> dict[int, Batch]:
        """See `contract.Deliverable`."""
        return await in_thread(self._store.alone, wanted)

    async def store_dead_letters(
        self, letters: list[DeadLetter], next_sequence: int, outcome: Outcome
    ) -> None:
        """See `contract.Deliverable`."""
        await in_thread(self._store.store_dead_letters, letters, {})
        self.advance(letters[0].sink, next_sequence, outcome)

    async def finish(self) -> None:
        """Count on disk what was delivered since the last call."""
        counts = self._cursor.counts
        delivered = counts.delivered + counts.duplicates
        await in_thread(self._store.count_replayed, self._cursor.name, delivered - self._counted)
        self._counted = delivered


class DeadLetterRetry(Replay):
    """A sink's dead letters in that range; those that the receiver accepts are removed.

    A dead letter without its record (it was deleted before the refusal) cannot be sent, and stays.
    """

    def __init__(self, store: Store, sink: str, first: int, end: int) -> None:
        super().__init__(store, sink, first, end)
        # Read and not removed yet, without those refused again.
        self._letters = dict[int, Batch]()
        self._messages = dict[int, bytes]()

    async def _found(self, sequence: int) -> list[Batch]:
        await self.finish()
        while True:
            sink = self._cursor.name
            letters = await in_thread(self._store.letters, sink, sequence, self._end, _LETTERS)
            batches = [letter.batch() for letter in letters if letter.record]
            if batches or not letters:
                self._letters |= {batch.first_sequence: batch for batch in batches}
                self._messages |= {letter.sequence: letter.message for letter in letters}
                return batches
            sequence = letters[-1].sequence + 1

    def message(self, sequence: int) -> bytes:
        """The message of a dead letter, as it was refused; empty if it had none."""
        return self._messages.get(sequence, b"")

    async def records(self, wanted: Set[int]) -> dict[int, Batch]:
        """See `contract.Deliverable`."""
        return {sequence: self._letters[sequence] for sequence in wanted}

    async def store_dead_letters(
        self, letters: list[DeadLetter], next_sequence: int, outcome: Outcome
    ) -> None:
        """See `contract.Deliverable`: the dead letters stay, with the newer reason."""
        for letter in letters:
            del self._letters[letter.sequence]
        await super().store_dead_letters(letters, next_sequence, outcome)

    async def finish(self) -> None:
        """Remove the dead letters that the receiver accepted.

        Exactly those: the relay may have added others between them, which were not sent.
        """
        settled = self._cursor.next_sequence
        taken = [sequence for sequence in self._letters if sequence < settled]
        drop = partial(self._store.drop_letters, self._cursor.name, taken, delivered=True)
        await in_thread(drop)
        for sequence in taken:
            del self._letters[sequence]
            self._messages.pop(sequence, None)
