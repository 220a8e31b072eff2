"""Formats each stored batch once for all sinks that read it at about the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

import trio

from siemrelay.core.event import Batch
from siemrelay.net.tasks import Broadcast
from siemrelay.pipeline.formatting.formatter import Formatter
from siemrelay.pipeline.formatting.messages import (
    NO_MESSAGES,
    GroupMessages,
    InternalError,
    SinkMessages,
    log_errors,
)
from siemrelay.pipeline.loop_turns import TURNS, LoopTurns
from siemrelay.pipeline.shared_batch import KEPT_BYTES, KeptBatches, SharedBatch
from siemrelay.pipeline.workers.pool import PendingBatch, WorkerPool

# While it is formatted for many sinks, a batch takes up to so many times its bytes: its events and
# its messages.
_WORK: Final = 8

WORTH_BYTES: Final = 32 * 1024
"""A smaller batch is formatted faster than it is sent to a worker and back."""

# A batch over this has one long record; a usual batch is at most half of it. Decoded or formatted,
# 10 MiB take up to 0.2 s, which is done in one go; redacted, they take up to 3 s, in a thread.
_LARGE_BYTES: Final = 1024 * 1024


class FormatCache:
    """Decoded and formatted batches, kept as long as a connected sink still needs them.

    A batch is kept while a reader is before it, with nothing but kept batches between: a lagging
    sink neither puts batches here nor evicts what the others share
    (test_a_lagging_sink_does_not_empty_the_cache).
    """

    def __init__(self, formatter: Formatter, pool: WorkerPool | None = None) -> None:
        """With a pool, what is large goes to its workers while there are some."""
        self._turns, self._pool, self._helps = LoopTurns(), pool, False
        # Readers that wait for messages now.
        self._asking, self._answered = set[SinkReader](), Broadcast()
        self._readers: dict[SinkReader, None] = {}
        self.replace_formatter(formatter)

    def replace_formatter(self, formatter: Formatter) -> None:
        """Format with this one from now on; what was formatted with another is forgotten."""
        self._formatter = formatter
        self._kept = KeptBatches[SinkReader]()

    @property
    def size_bytes(self) -> int:
        """About the memory that the kept batches take."""
        return self._kept.size_bytes

    @property
    def readers(self) -> int:
        """How many sinks read now."""
        return len(self._readers)

    def reader(self, sink: str) -> SinkReader:
        """The reader of that sink's messages."""
        return SinkReader(self, sink)

    @contextmanager
    def reading(self, reader: SinkReader) -> Iterator[None]:
        """Keep for this reader what others before it have formatted."""
        self._readers[reader] = None
        try:
            yield
        finally:
            del self._readers[reader]
            for kept in [*self._kept.values()]:
                self._kept.pass_by(kept, reader)

    def made_alone(self, reader: SinkReader, batch: Batch) -> SinkMessages | None:
        """That sink's messages of a batch that neither another sink reads nor a worker formats.

        None: it is no such one. Never raises.
        """
        if self._kept or len(self._readers) > 1:
            return None
        size_bytes = len(batch.payload)
        if size_bytes >= WORTH_BYTES and (size_bytes > _LARGE_BYTES or self.has_workers):
            return None
        return self._alone(reader, batch)

    def _alone(self, reader: SinkReader, batch: Batch) -> SinkMessages:
        errors: list[InternalError] = []
        found = self._formatter.messages(reader.sink, batch, errors)
        if errors:
            log_errors(errors)
        return found

    async def get(
        self, reader: SinkReader, batch: Batch, following: Iterable[Batch] = ()
    ) -> SinkMessages:
        """That sink's messages of a batch. Never raises; yields only where it has long work.

        While a worker has the batch, some that are `following` it are formatted here.
        """
        if (found := self._find(reader, batch)) is not None:
            return found
        if len(batch.payload) < WORTH_BYTES:
            return self._make(reader, batch)
        reader.position = max(reader.position, batch.first_sequence)
        self._asking.add(reader)
        try:
            while self._evicts_awaited(batch):
                await self._answered.wait()
            return await self._get_usual(reader, batch, following)
        finally:
            self._asking.discard(reader)
            self._answered.wake_all()

    def _evicts_awaited(self, batch: Batch) -> bool:
        """Whether this one, formatted now, takes the room of an earlier one that a reader asks for.

        Then it waits: the other reader would decode its batch again, and lag behind for good. Only
        work of this process is waited for, never a receiver, and only a reader of an earlier batch:
        no two wait for each other (test_a_sink_ahead_waits_for_one_that_asks_for_an_earlier_batch).
        """
        return self.size_bytes + _WORK * len(batch.payload) > KEPT_BYTES and any(
            other.position < kept.next_sequence
            for kept in self._kept.values()
            if kept.next_sequence <= batch.first_sequence
            for other in kept.waiting & self._asking
        )

    async def _get_usual(
        self, reader: SinkReader, batch: Batch, following: Iterable[Batch]
    ) -> SinkMessages:
        while (found := self._find(reader, batch)) is None:
            size_bytes = len(batch.payload)
            if (kept := self._asked(reader, batch)) is None:
                if size_bytes > _LARGE_BYTES:
                    return await self._make_in_turn(reader, batch)
                if len(self._readers) > 1:
                    await self._turns.wait(size_bytes)
                    if (found := self._find(reader, batch)) is not None:
                        return found
                return self._make(reader, batch)
            formatter = self._formatter
            while kept.asked:
                if not await self._make_meanwhile(reader, following, kept):
                    await kept.until_answered()
            if formatter is self._formatter:
                # Also if it was evicted meanwhile.
                found = kept.messages(formatter.places[reader.sink])
                if found is not None:
                    return found
        return found

    def prepare(self, reader: SinkReader, batches: Iterable[Batch]) -> None:
        """Have batches formatted that the reader will want next, if there are workers."""
        for batch in batches:
            if len(batch.payload) < WORTH_BYTES:
                continue
            if self._pool is None or not self._pool.has_room:
                return
            if self._find(reader, batch) is None:
                self._asked(reader, batch)

    async def _make_meanwhile(
        self, reader: SinkReader, following: Iterable[Batch], awaited: _Shared
    ) -> bool:
        """Format one that no worker has, if they are all busy; False, at once, if there is none.

        Only if `awaited` is still not answered after everybody else has had some turns: the process
        that owns buffer and connections must not keep the workers waiting.
        """
        if self._helps or self._left(reader, following) is None:
            return False
        self._helps = True  # one sink at a time: the others wait for the workers
        try:
            for _ in range(TURNS):
                await trio.lowlevel.checkpoint()
                if not awaited.asked:
                    return True
        finally:
            self._helps = False
        self.prepare(reader, following)
        if (batch := self._left(reader, following)) is not None:
            if batch.first_sequence not in self._kept:
                self._kept.keep(SharedBatch(batch, {*self._near(reader, batch), reader}))
            self._make(reader, batch)
        return True

    def _left(self, reader: SinkReader, batches: Iterable[Batch]) -> Batch | None:
        """The first usual batch that is neither formatted nor with a worker."""
        for batch in batches:
            kept = self._kept.get(batch.first_sequence)
            asked = kept is not None and kept.asked
            if not asked and len(batch.payload) <= _LARGE_BYTES and not self._find(reader, batch):
                return batch
        return None

    @property
    def has_workers(self) -> bool:
        """Whether it is worth while to read ahead."""
        return self._pool is not None and self._pool.at_work > 0

    def forwards(self, reader: SinkReader, batch: Batch) -> bool:
        """Whether the reader's messages are the batch's records as they came."""
        return self._formatter.forwards(reader.sink, batch)

    def note_behind(self) -> None:
        """A reader has more to format than it has taken."""
        if self._pool is not None:
            self._pool.note_behind()

    def _asked(self, reader: SinkReader, batch: Batch) -> _Shared | None:
        """The batch while a worker formats it, for this reader and those near; None: none does.

        It is `WORTH_BYTES`. To pass on what is forwarded as it came would be more work.
        """
        if self.forwards(reader, batch):
            return None
        kept = self._kept.get(batch.first_sequence)
        if kept is not None and kept.asked:
            return kept
        if self._pool is None or not self._pool.has_room:
            return None
        if kept is None:
            kept = SharedBatch(batch, {*self._near(reader, batch), reader})
        if kept.left_to_the_relay:
            return None
        places = {
            self._formatter.places[other.sink] for other in (*kept.waiting, reader)
            if not self.forwards(other, batch)
        }  # fmt: skip
        groups = {place[0] for place in places if kept.messages(place) is None}
        wanted: dict[int, list[int]] = {group: [] for group in sorted(groups)}
        for group, view in sorted(places):
            if group in wanted:
                wanted[group].append(view)
        self._kept.keep(kept)
        kept.ask(batch, len(wanted))
        self._pool.submit(PendingBatch(batch, wanted, kept.answer))
        return kept

    async def _make_in_turn(self, reader: SinkReader, batch: Batch) -> SinkMessages:
        async with self._turns.for_long():
            while (found := self._find(reader, batch)) is None:
                formatter = self._formatter
                if not formatter.redacts(reader.sink):
                    return self._make(reader, batch)
                made = await self._make_in_thread(reader, batch)
                if formatter is self._formatter:
                    return made
            return found

    def passed(self, reader: SinkReader, batch: Batch) -> None:
        """The reader needs nothing of that batch any more."""
        if (kept := self._kept.get(batch.first_sequence)) is not None:
            self._kept.pass_by(kept, reader)

    def _find(self, reader: SinkReader, batch: Batch) -> SinkMessages | None:
        sink = self._formatter.sinks[reader.sink]
        if not batch.count or not sink.takes(batch):
            return NO_MESSAGES
        kept = self._kept.get(batch.first_sequence)
        return None if kept is None else kept.messages(self._formatter.places[reader.sink])

    def _make(self, reader: SinkReader, batch: Batch) -> SinkMessages:
        kept = self._kept.get(batch.first_sequence)
        near: list[SinkReader] = []
        if kept is None:
            near = [*self._near(reader, batch)] if len(self._readers) > 1 else []
            if not near:
                return self._alone(reader, batch)
            kept = SharedBatch(batch, {*near, reader})
        place = self._formatter.places[reader.sink]
        found = self._made(kept, place, self._work(kept, batch, place)())
        if near:
            self._kept.keep(kept)
        return found

    async def _make_in_thread(self, reader: SinkReader, batch: Batch) -> SinkMessages:
        """As `_make`, while everybody else goes on."""
        place = self._formatter.places[reader.sink]
        kept = self._kept.get(batch.first_sequence)
        if kept is None:
            # From now on, so that a reader that leaves meanwhile is waited for no more.
            self._kept.keep(kept := SharedBatch(batch, {*self._near(reader, batch), reader}))
        work = self._work(kept, batch, place)
        # Decoders are for one thread: what is still to be decoded is decoded here.
        assert kept.decoded is None or len(kept.decoded.events) == batch.count
        found = self._made(kept, place, await trio.to_thread.run_sync(work))
        if self._kept.get(kept.first_sequence) is kept:
            self._kept.keep(kept)  # with what it takes now
        return found

    def _work(
        self, kept: _Shared, batch: Batch, place: tuple[int, int]
    ) -> Callable[[], GroupMessages]:
        """Makes the messages of a group for all sinks that wait for it."""
        places = frozenset((place, *(self._formatter.places[other.sink] for other in kept.waiting)))
        fields = self._formatter.fields(places)
        if kept.decoded is None or not fields <= kept.fields:
            kept.decoded, kept.fields = self._formatter.decode(batch, kept.errors, fields), fields
        views = {view for group, view in places if group == place[0]}
        return partial(self._formatter.format, kept.decoded, place[0], views, kept.errors)

    def _made(self, kept: _Shared, place: tuple[int, int], made: GroupMessages) -> SinkMessages:
        """The messages for that place; the events are forgotten when nobody waits for others."""
        kept.add(place[0], made)
        places = self._formatter.places
        wanted = {places[other.sink][0] for other in kept.waiting if other.sink in places}
        if wanted <= kept.groups.keys():
            kept.decoded = None
        log_errors(kept.errors)
        kept.errors.clear()
        found = kept.messages(place)
        assert found is not None
        return found

    def _near(self, reader: SinkReader, batch: Batch) -> Iterator[SinkReader]:
        """The other readers that come to this batch over batches that are kept for them."""
        start = self._kept.reach(batch)
        for other in self._readers:
            if (
                other is not reader
                and start <= other.position < batch.next_sequence
                and other.sink in self._formatter.sinks
                and self._formatter.sinks[other.sink].takes(batch)
            ):
                yield other


class SinkReader:
    """One sink's way through the stored batches, in order."""

    def __init__(self, cache: FormatCache, sink: str) -> None:
        self._cache, self.sink = cache, sink
        self.position = 0
        """The first record that it has not read."""

    @contextmanager
    def reading(self, position: int) -> Iterator[None]:
        """Read from there on: until the end, what others format is kept for this sink, too."""
        self.position = position
        with self._cache.reading(self):
            yield

    @property
    def reads_ahead(self) -> bool:
        """Whether batches that it will want next can be prepared."""
        return self._cache.has_workers

    def share_of(self, size_bytes: int) -> int:
        """This reader's part of what all sinks that read now may hold."""
        return size_bytes // max(self._cache.readers, 1)

    def prepare(self, batches: Sequence[Batch], *, behind: bool) -> None:
        """Have batches formatted that are read next; `behind`: there are many more than these."""
        if behind and not self._cache.forwards(self, batches[0]):
            self._cache.note_behind()
        if self.reads_ahead:
            self._cache.prepare(self, batches)

    async def messages(self, batch: Batch, following: Iterable[Batch] = ()) -> SinkMessages:
        """The sink's messages of a batch, which it has then read. Never raises.

        `following` will be read next: some are formatted while a worker has the batch.
        """
        found = self._cache.made_alone(self, batch)
        if found is None:
            found = await self._cache.get(self, batch, following)
            self._cache.passed(self, batch)
        self.position = batch.next_sequence
        return found


_Shared = SharedBatch[SinkReader]
