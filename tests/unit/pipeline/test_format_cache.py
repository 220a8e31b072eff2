"""Sinks share what is formatted, and each gets exactly what it would have got alone."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from siemrelay.core.event import AuditEvent, Batch, DecodedBatch, Selection
from siemrelay.core.filters import EventFilter, EventsOptions
from siemrelay.formats.contract import Format
from siemrelay.formats.raw import Raw
from siemrelay.pipeline.format_cache import WORTH_BYTES, FormatCache, SinkReader
from siemrelay.pipeline.formatting.formatter import Formatter
from siemrelay.pipeline.formatting.messages import SinkMessages
from siemrelay.pipeline.formatting.sink_format import SinkFormat
from siemrelay.pipeline.shared_batch import OVERDUE_S
from siemrelay.pipeline.workers.pool import PendingBatch
from tests.support.events.formats import messages_for
from tests.support.events.products import CATALOGUE

# With its line feed, what all sinks format in one turn of the loop.
HALF_MIB = (512 << 10) - 1


class Words:
    """A decoder: the record is the event's type. Counts its batches."""

    def __init__(self) -> None:
        self.batches = 0

    def decode(self, batch: Batch) -> DecodedBatch:
        self.batches += 1
        records = batch.records()
        decoded = DecodedBatch(batch, [AuditEvent(type=r.decode("utf-8", "replace"))
                                       for r in records], unparsed=len(records) % 3)  # fmt: skip
        decoded.replaced = frozenset(i for i, r in enumerate(records) if b"\xff" in r)
        return decoded


class Having:
    """A filter: takes what has one of these letters; an empty text takes everything."""

    same_for_all = None
    fields: frozenset[str] = frozenset()

    def __init__(self, letters: str) -> None:
        self._letters = letters

    def select(self, events: Sequence[AuditEvent]) -> list[bool] | None:
        if not self._letters:
            return None
        return [any(letter in self._letters for letter in event.type) for event in events]


class Marked:
    """A format: a prefix and the event's type. Counts its events, and has a bug about some."""

    def __init__(self, prefix: str, *fields: str) -> None:
        self._prefix, self.events, self.fields = prefix, 0, frozenset(fields)

    def encode(self, selection: Selection) -> list[bytes]:
        if any("bug" in event.type for event in selection.events):
            raise KeyError("a bug")
        self.events += len(selection)
        return [f"{self._prefix}{event.type}".encode() for event in selection.events]


def sink(letters: str, form: Any, *, limit: int | None = None) -> SinkFormat:
    events: Any = Having(letters)
    return SinkFormat(events, form, limit, made_of=(form, limit), filtered_by=letters)


def batch_of(first: int, *records: str) -> Batch:
    payload = b"".join(record.encode("latin-1") + b"\n" for record in records)
    return Batch(first, len(records), "app", 0.0, payload)


@pytest.mark.parametrize("seed", range(30))
async def test_sinks_that_share_get_what_each_would_have_got_alone(seed: int) -> None:
    rng = random.Random(seed)
    forms = [Marked(prefix) for prefix in "<>"]
    sinks = {
        f"s{n}": sink("".join(rng.sample("abcde", rng.randrange(4))), rng.choice(forms),
                      limit=rng.choice([None, 12]))
        for n in range(8)
    }  # fmt: skip
    formatter, first, batches = Formatter(sinks, {}, Words()), 1, []
    odd = ["\xff", "bug", "a longer text", ""]
    for _ in range(6):
        records = ["".join(rng.sample("abcdefgh", 2)) + rng.choice([*odd, *[""] * 30])
                   for _ in range(rng.randrange(1, 12))]  # fmt: skip
        batches.append(batch_of(first, *records))
        first += len(records)
    cache = FormatCache(formatter)
    found: dict[str, list[SinkMessages]] = {name: [] for name in sinks}

    async def read(name: str) -> None:
        reader = cache.reader(name)
        with reader.reading(1):
            for batch in batches:
                for _ in range(rng.randrange(3)):
                    await trio.lowlevel.checkpoint()
                found[name].append(await reader.messages(batch))

    async with trio.open_nursery() as nursery:
        for name in sinks:
            nursery.start_soon(read, name)
    for name, own in sinks.items():
        alone = Formatter({name: own}, {}, Words())
        for batch, messages in zip(batches, found[name], strict=True):
            assert messages == messages_for(alone, name, batch)
            assert messages == formatter.messages(name, batch, [])


async def together(cache: FormatCache, readers: Sequence[SinkReader], batches: list[Batch]) -> None:
    """All of them read all of the batches, in turn."""
    for batch in batches:
        for reader in readers:
            await reader.messages(batch)


async def test_sinks_alike_are_formatted_once_and_one_with_another_filter_takes_part() -> None:
    decoder, form = Words(), Marked("")
    sinks = {"one": sink("ab", form), "two": sink("ab", form), "fewer": sink("a", form)}
    cache = FormatCache(Formatter(sinks, {}, decoder))
    readers = [cache.reader(name) for name in sinks]
    batches = [batch_of(1, "a", "b", "c"), batch_of(4, "a", "b")]
    with readers[0].reading(1), readers[1].reading(1), readers[2].reading(1):
        await together(cache, readers, batches)
    assert (decoder.batches, form.events) == (2, 4)


async def test_a_sink_that_nobody_reads_for_costs_nothing() -> None:
    form, unwanted = Marked(""), Marked("")
    cache = FormatCache(Formatter({"up": sink("", form), "down": sink("", unwanted)}, {}, Words()))
    reader = cache.reader("up")
    with reader.reading(1):
        await reader.messages(batch_of(1, "a", "b"))
    assert (form.events, unwanted.events) == (2, 0)


class Fitted(Words):
    """A decoder that fills some fields, the message by the record's text, and notes which."""

    def __init__(self, noted: list[set[str]], fields: frozenset[str]) -> None:
        super().__init__()
        self._noted, self._fields = noted, fields

    def decode(self, batch: Batch) -> DecodedBatch:
        self._noted.append({*self._fields})
        decoded = super().decode(batch)
        for event in decoded.events:
            event.message = event.type if "message" in self._fields else ""
        return decoded


class Messages(Marked):
    """A format that writes the message."""

    def encode(self, selection: Selection) -> list[bytes]:
        return [(event.message or "").encode() for event in selection.events]


async def test_only_the_fields_of_sinks_that_read_a_batch_are_decoded() -> None:
    noted: list[set[str]] = []
    sinks = {"up": sink("", Marked("", "type")), "alike": sink("", Marked("", "type")),
             "down": sink("", Messages("", "message"))}  # fmt: skip
    cache = FormatCache(Formatter(sinks, {"app": partial(Fitted, noted)}, Words()))
    up, alike, down = (cache.reader(name) for name in sinks)
    with up.reading(1), alike.reading(1):
        await together(cache, [up, alike], [batch_of(1, "a"), batch_of(2, "b")])
        assert noted == [{"type"}] * 2
        # One comes back while the events of the others are kept, without its field.
        await up.messages(batch_of(3, "c"))
        with down.reading(3):
            found = await down.messages(batch_of(3, "c"))
            assert [*found.messages] == [b"c"]
            await together(cache, [up, alike, down], [batch_of(4, "d")])
    assert noted[2:] == [{"type"}, {"type", "message"}, {"type", "message"}]


async def test_a_lagging_sink_does_not_empty_the_cache() -> None:
    decoder, form = Words(), Marked("")
    sinks = {name: sink("", form) for name in ("one", "two", "lagging")}
    cache = FormatCache(Formatter(sinks, {}, decoder))
    one, two, lagging = (cache.reader(name) for name in sinks)
    old = [batch_of(n, "x" * 900_000) for n in range(1, 30)]
    new = [batch_of(n, "x" * 900_000) for n in range(101, 104)]
    with one.reading(101), two.reading(101), lagging.reading(1):
        await together(cache, [one], new)
        await together(cache, [lagging], old)
        await together(cache, [two], new)
    assert decoder.batches == len(new) + len(old)


async def test_a_sink_too_far_behind_formats_for_itself_and_memory_stays_bounded() -> None:
    decoder, form = Words(), Marked("")
    cache = FormatCache(Formatter({"fast": sink("", form), "slow": sink("", form)}, {}, decoder))
    fast, slow = cache.reader("fast"), cache.reader("slow")
    batches = [batch_of(n, "x" * 500_000) for n in range(1, 41)]
    with fast.reading(1), slow.reading(1):
        await together(cache, [fast], batches)
        assert cache.size_bytes <= 8 << 20
        await together(cache, [slow], batches)
        assert cache.size_bytes == 0
    assert len(batches) < decoder.batches < 2 * len(batches)


async def test_what_a_sink_leaves_behind_is_forgotten_when_it_stops() -> None:
    form = Marked("")
    cache = FormatCache(Formatter({"fast": sink("", form), "slow": sink("", form)}, {}, Words()))
    fast, slow = cache.reader("fast"), cache.reader("slow")
    with fast.reading(1):
        with slow.reading(1):
            await together(cache, [fast], [batch_of(1, "a", "b"), batch_of(3, "a")])
            assert cache.size_bytes
        assert not cache.size_bytes


async def test_long_records_leave_turns_to_others() -> None:
    """Five sinks want ten long records each; somebody who needs four turns waits for one record."""
    forms = [Marked(str(n)) for n in range(5)]
    sinks = {f"s{n}": sink("", form) for n, form in enumerate(forms)}
    cache = FormatCache(Formatter(sinks, {}, Words()))
    batches = [batch_of(n, "x" * (2 << 20)) for n in range(1, 11)]
    light = most = 0
    done = trio.Event()

    async def read(name: str, running: list[str]) -> None:
        reader = cache.reader(name)
        with reader.reading(1):
            for batch in batches:
                await reader.messages(batch)
        running.remove(name)
        if not running:
            done.set()

    async def bystander() -> None:
        nonlocal light, most
        while not done.is_set():
            before = sum(form.events for form in forms)
            for _ in range(4):
                await trio.lowlevel.checkpoint()
            light, most = light + 1, max(most, sum(form.events for form in forms) - before)

    async with trio.open_nursery() as nursery:
        running = list(sinks)
        for name in sinks:
            nursery.start_soon(read, name, running)
        nursery.start_soon(bystander)
    assert most <= 1
    assert light >= 40


class Redacting:
    """A transform that takes long: until somebody else has had a turn. Counts its work."""

    redacts, fields = True, frozenset[str]()

    def __init__(self) -> None:
        self.went_on, self.applied = threading.Event(), 0

    def select(self, decoded: DecodedBatch, keep: Any) -> tuple[Any, dict[str, list[int]]]:
        return keep, {}

    def apply(self, selection: Selection) -> tuple[Selection, list[int]]:
        assert self.went_on.wait(60), "nobody else had a turn"
        self.applied += 1
        return selection, list(selection.sequences)


@pytest.mark.parametrize("change", ["", "formatter"])
async def test_everybody_else_goes_on_while_a_long_record_is_redacted(change: str) -> None:
    form, redacting = Marked(""), Redacting()
    transform: Any = redacting
    sinks = {n: replace(sink("", form), transform=transform) for n in ("one", "two")}
    cache = FormatCache(Formatter(sinks, {}, Words()))
    batch, found = batch_of(1, "x" * (2 << 20)), list[SinkMessages]()

    async def read(name: str) -> None:
        reader = cache.reader(name)
        with reader.reading(1):
            found.append(await reader.messages(batch))

    async with trio.open_nursery() as nursery:
        for name in sinks:
            nursery.start_soon(read, name)
        await trio.testing.wait_all_tasks_blocked()
        if change:
            cache.replace_formatter(Formatter(sinks, {}, Words()))
        redacting.went_on.set()
    assert [(made.messages, made.redacted) for made in found] == [([b"x" * (2 << 20)], [1])] * 2
    assert redacting.applied == (2 if change else 1)
    assert cache.size_bytes == 0


async def test_usual_batches_wait_for_nobody() -> None:
    cache = FormatCache(Formatter({"s": sink("", Marked(""))}, {}, Words()))
    reader = cache.reader("s")
    with trio.CancelScope() as scope:
        scope.cancel()
        # Without a checkpoint it cannot be cancelled.
        await reader.messages(batch_of(1, "x" * (512 << 10)))
        return
    raise AssertionError("it waited")


class Unable:
    """A pool in which no worker can format a batch."""

    has_room, at_work = True, 1

    def __init__(self) -> None:
        self.asked, self.behind = 0, False

    def submit(self, pending: PendingBatch) -> None:
        self.asked += 1
        pending.finished(None)

    def note_behind(self) -> None:
        self.behind = True


async def test_what_no_worker_can_format_the_relay_formats_and_asks_none_again() -> None:
    pool, form = Unable(), Marked("")
    sinks = {"one": sink("", form), "two": sink("a", form)}
    unable: Any = pool
    cache = FormatCache(Formatter(sinks, {}, Words()), unable)
    one, two = cache.reader("one"), cache.reader("two")
    batch = batch_of(1, "a" * WORTH_BYTES, "b")
    with one.reading(1), two.reading(1):
        assert len((await one.messages(batch)).messages) == 2
        assert len((await two.messages(batch)).messages) == 1
    assert (pool.asked, form.events) == (1, 2)


async def test_what_is_forwarded_as_it_came_starts_no_worker_and_goes_to_none() -> None:
    pool, written = Unable(), Marked("")
    unable: Any = pool
    sinks = {"raw": takes_all(Raw()), "written": sink("", written)}
    cache = FormatCache(Formatter(sinks, {}, Words()), unable)
    raw, other = cache.reader("raw"), cache.reader("written")
    batch = batch_of(1, "a" * WORTH_BYTES, "b")
    with raw.reading(1), other.reading(1):
        raw.prepare([batch], behind=True)
        assert (pool.asked, pool.behind) == (0, False)
        assert (await raw.messages(batch)).messages == batch.records()
        other.prepare([batch], behind=True)
        assert (pool.asked, pool.behind) == (1, True)
    assert written.events == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_a_lone_sink_formats_a_large_batch_at_once_where_no_worker_runs(workers: int) -> None:
    pool: Any = Unable()
    pool.at_work = workers
    cache = FormatCache(Formatter({"s": sink("", Marked(""))}, {}, Words()), pool)
    reader = cache.reader("s")
    with reader.reading(1):
        made = cache.made_alone(reader, batch_of(1, "a" * WORTH_BYTES))
    assert (made is None) == bool(workers)


def takes_all(form: Format) -> SinkFormat:
    return SinkFormat(EventFilter(EventsOptions(), CATALOGUE), form)


class Busy:
    """A pool with one worker, which takes one batch and answers when the test lets it."""

    at_work = 1

    def __init__(self, formatter: Formatter) -> None:
        self._formatter = formatter
        self.taken: list[PendingBatch] = []

    @property
    def has_room(self) -> bool:
        return not self.taken

    def submit(self, pending: PendingBatch) -> None:
        self.taken.append(pending)

    def answer(self, *, has_room: bool = True) -> None:
        pending = self.taken.pop() if has_room else self.taken[-1]
        pending.finished(self._formatter.formatted(pending.job.batch, pending.job.wanted))

    def note_behind(self) -> None:
        pass


def beside_a_worker(sinks: dict[str, SinkFormat], decoder: Words) -> tuple[FormatCache, Busy]:
    formatter = Formatter(sinks, {}, decoder)
    pool = Busy(formatter)
    busy: Any = pool
    return FormatCache(formatter, busy), pool


async def test_while_the_worker_has_the_first_batch_the_relay_formats_those_that_follow() -> None:
    form = Marked("")
    cache, pool = beside_a_worker({"s": sink("", form)}, Words())
    reader = cache.reader("s")
    batches = [batch_of(n, "a" * WORTH_BYTES) for n in range(1, 5)]
    with reader.reading(1):
        reader.prepare(batches, behind=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.messages, batches[0], batches)
            await trio.testing.wait_all_tasks_blocked()
            assert [pending.job.batch for pending in pool.taken] == batches[:1]
            assert form.events == 3
            pool.answer()
        form.events = 0
        for batch in batches[1:]:
            assert len((await reader.messages(batch)).messages) == 1
        assert form.events == 0


async def test_a_worker_that_answers_soon_gets_the_batches_that_follow() -> None:
    form = Marked("")
    cache, pool = beside_a_worker({"s": sink("", form)}, Words())
    reader = cache.reader("s")
    batches = [batch_of(n, "a" * WORTH_BYTES) for n in range(1, 4)]
    with reader.reading(1):
        for at in range(3):
            reader.prepare(batches[at:], behind=True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reader.messages, batches[at], batches[at:])
                await trio.lowlevel.checkpoint()
                pool.answer()
    assert form.events == 3, "all by the worker"
    assert not pool.taken


def test_sinks_that_read_share_a_budget() -> None:
    cache = FormatCache(
        Formatter({"a": sink("", Marked("")), "b": sink("", Marked(""))}, {}, Words())
    )
    one, other = cache.reader("a"), cache.reader("b")
    with one.reading(1):
        assert one.share_of(1000) == 1000
        with other.reading(1):
            assert (one.share_of(1000), other.share_of(1000)) == (500, 500)
        assert one.share_of(1000) == 1000


@contextmanager
def reading(cache: FormatCache, sinks: Iterable[str]) -> Iterator[list[SinkReader]]:
    """All of them read from the first record on."""
    readers = [cache.reader(name) for name in sinks]
    with ExitStack() as all_reading:
        for reader in readers:
            all_reading.enter_context(reader.reading(1))
        yield readers


async def read(reader: SinkReader, batches: list[Batch]) -> None:
    for batch in batches:
        await trio.lowlevel.checkpoint()
        await reader.messages(batch)


async def test_many_sinks_format_little_in_one_turn_of_the_loop() -> None:
    """Forty sinks want ten usual batches each, in forms of their own; the loop turns for others."""
    forms = [Marked(str(n)) for n in range(40)]
    sinks = {f"s{n}": sink("", form) for n, form in enumerate(forms)}
    cache = FormatCache(Formatter(sinks, {}, Words()))
    batches = [batch_of(n, "x" * HALF_MIB) for n in range(1, 11)]

    def formatted() -> int:
        return sum(form.events for form in forms)

    with reading(cache, sinks) as readers:
        async with trio.open_nursery() as nursery:
            for reader in readers:
                nursery.start_soon(read, reader, batches)
            while (before := formatted()) < 400:
                await trio.lowlevel.checkpoint()
                assert formatted() - before <= 2


async def test_a_sink_ahead_waits_for_one_that_asks_for_an_earlier_batch() -> None:
    """Sixteen batches are more than the cache holds: the other one would decode each again."""
    decoder, forms = Words(), {name: Marked(name) for name in ("ahead", "behind")}
    cache, pool = beside_a_worker({n: sink("", form) for n, form in forms.items()}, decoder)
    batches = [batch_of(n, "x" * HALF_MIB) for n in range(1, 17)]
    ahead, behind = cache.reader("ahead"), cache.reader("behind")
    with behind.reading(1), ahead.reading(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, behind, batches)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(read, ahead, batches[1:])
            await trio.testing.wait_all_tasks_blocked()
            assert forms["behind"].events == 0
            assert 0 < forms["ahead"].events < 15
            pool.answer(has_room=False)
    assert (forms["ahead"].events, forms["behind"].events) == (15, 16)
    assert decoder.batches == 16


async def test_sinks_near_each_other_format_soon_what_a_worker_that_hangs_has(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Sixteen batches are more than the cache holds, so the one ahead waits, too."""
    decoder, forms = Words(), {name: Marked(name) for name in ("ahead", "one", "two")}
    cache, pool = beside_a_worker({n: sink("", form) for n, form in forms.items()}, decoder)
    batches = [batch_of(n, "x" * HALF_MIB) for n in range(1, 17)]
    began_s = trio.current_time()
    with reading(cache, ("one", "two")) as near, cache.reader("ahead").reading(2):
        async with trio.open_nursery() as nursery:
            for reader in near:
                nursery.start_soon(read, reader, batches)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(read, cache.reader("ahead"), batches[1:])
    assert trio.current_time() - began_s == pytest.approx(OVERDUE_S)
    assert {name: form.events for name, form in forms.items()} == {
        "ahead": 15,
        "one": 16,
        "two": 16,
    }
    (hanging,) = pool.taken
    pool.answer()
    assert cache.size_bytes == 0, hanging


async def test_a_sink_that_sends_slowly_is_not_waited_for() -> None:
    sinks = {f"s{n}": sink("", Marked(str(n))) for n in range(3)}
    cache = FormatCache(Formatter(sinks, {}, Words()))
    batches = [batch_of(n, "x" * HALF_MIB) for n in range(1, 41)]
    others_done = trio.Event()

    async def read_slowly(reader: SinkReader) -> None:
        for batch in batches:
            await reader.messages(batch)
            await others_done.wait()  # its receiver takes nothing before that

    with reading(cache, sinks) as (slow, *fast):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_slowly, slow)
            async with trio.open_nursery() as others:
                for reader in fast:
                    others.start_soon(read, reader, batches)
            others_done.set()
