"""From a real buffer to a scripted peer: what the cursor passes, what is sent again."""

from __future__ import annotations

import itertools
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence, Set
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, Literal

import pytest
import trio
from structlog.testing import capture_logs

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.buffer.dead_letters import DeadLetter
from siemrelay.buffer.sink_cursor import Outcome, SinkCursor, SinkPolicy
from siemrelay.core.backoff import HOLD_PROBE_S, delay_s
from siemrelay.core.errors import BatchRefused, SinkHolds, SinkWaits
from siemrelay.core.event import AuditEvent, Batch, DecodedBatch, Selection
from siemrelay.core.event_types import UNPARSED
from siemrelay.formats.contract import Format
from siemrelay.formats.raw import Raw
from siemrelay.net.tasks import Broadcast
from siemrelay.pipeline.delivery import Delivery
from siemrelay.pipeline.format_cache import FormatCache, SinkReader
from siemrelay.pipeline.formatting.formatter import Formatter
from siemrelay.pipeline.formatting.messages import InternalError
from siemrelay.pipeline.formatting.sink_format import SinkFormat
from siemrelay.pipeline.retries import Retry
from siemrelay.sinks.contract import (
    BatchLimits,
    ConfirmsEarly,
    Refusal,
    Report,
    Settlement,
    no_report,
)
from siemrelay.telemetry.stats import BufferStats, SinkCounts, SinkStats
from tests.support.buffers import advance

QUICK = Retry(0.001, 0.002)
MANY_IN_FLIGHT = BatchLimits(in_flight_batches=64)


class Words:
    """A decoder: the record is the event's type."""

    def decode(self, batch: Batch) -> DecodedBatch:
        if b"bug in decoder" in batch.payload:
            raise ValueError("a bug")
        return DecodedBatch(batch, [AuditEvent(type=r.decode()) for r in batch.records()])


class Keep:
    """A filter: leaves out what begins with `skip`."""

    same_for_all = None
    fields: frozenset[str] = frozenset()

    def select(self, events: Sequence[AuditEvent]) -> list[bool] | None:
        return [not event.type.startswith("skip") for event in events]


class Buggy(Raw):
    """A format with a bug about some events."""

    def encode(self, selection: Selection) -> Sequence[bytes]:
        if any(event.type.startswith("bug in format") for event in selection.events):
            raise KeyError("a bug")
        return super().encode(selection)


Verdict = Callable[[Sequence[bytes]], Settlement]


def takes(messages: Sequence[bytes]) -> Settlement:
    """A peer that takes everything."""
    return ()


def refuses(bad: Callable[[bytes], bool]) -> Verdict:
    """A peer that refuses a whole run that holds something bad, without saying which."""

    def verdict(messages: Sequence[bytes]) -> Settlement:
        if any(map(bad, messages)):
            raise BatchRefused(code="400", reason="bad event")
        return ()

    return verdict


class Peer:
    """A sink and its session. `at_send` and `at_confirm` are asked about each run."""

    def __init__(self, at_send: Verdict = takes, at_confirm: Verdict = takes) -> None:
        self.at_send, self.at_confirm = at_send, at_confirm
        self.connect: Callable[[], None] = lambda: None
        self.sent: list[bytes] = []
        self.confirmed: list[bytes] = []
        self.runs: list[list[bytes]] = []
        self.open = self.sessions = 0
        self._confirming = False

    @asynccontextmanager
    async def session(self, report: Report = no_report) -> AsyncIterator[Peer]:
        await trio.lowlevel.checkpoint()
        self.connect()
        self.open += 1
        self.sessions += 1
        try:
            yield self
        finally:
            self.open -= 1

    async def send(self, messages: Sequence[bytes]) -> list[bytes]:
        await trio.lowlevel.checkpoint()
        self.at_send(messages)
        self.runs.append(list(messages))
        self.sent += messages
        return list(messages)

    async def confirm(self, ticket: list[bytes]) -> Settlement:
        assert not self._confirming, "one task at a time"
        self._confirming = True
        try:
            await trio.lowlevel.checkpoint()
            settlement = self.at_confirm(ticket)
        finally:
            self._confirming = False
        refused = {refusal.index for refusal in settlement}
        self.confirmed += [m for i, m in enumerate(ticket) if i not in refused]
        return settlement


class PromptPeer(Peer, ConfirmsEarly):
    """A peer that has every other batch by the time it is sent.

    `patience_s`: what it has not taken by then it takes when the next one is sent, or so late.
    """

    patience_s = 0.0

    def is_confirmed(self, ticket: list[bytes]) -> bool:
        assert not self._confirming
        assert [*self.confirmed, *ticket] == self.sent[: len(self.confirmed) + len(ticket)]
        if len(self.runs) % 2 and self.runs[-1] == ticket:
            return False
        self.confirmed += ticket
        return True

    def hurry(self) -> None:
        assert self.open, "nobody waits for a closed session"


class Rig:
    """A buffer, one sink called `s`, and its delivery."""

    def __init__(self, buffer: DiskBuffer, state_dir: Path) -> None:
        self.buffer, self.state_dir = buffer, state_dir
        self.stats = SinkStats("s")

    async def add(self, *records: str) -> None:
        payload = b"".join(record.encode() + b"\n" for record in records)
        made = Batch(self.buffer.end, len(records), "app", time.time(), payload)
        await self.buffer.append([made], {})

    def reader(self, form: Format | None = None) -> SinkReader:
        events: Any = Keep()
        sink = SinkFormat(events, form or Raw(), 100)
        return FormatCache(Formatter({"s": sink}, {}, Words())).reader("s")

    def delivery(
        self, peer: Peer, limits: BatchLimits | None = None, retry: Retry = QUICK,
        form: Format | None = None,
    ) -> Delivery:  # fmt: skip
        limits = limits or BatchLimits()
        reader = self.reader(form)
        return Delivery("s", peer, reader, limits, self.buffer, self.stats, retry)

    async def deliver(
        self, peer: Peer, limits: BatchLimits | None = None, form: Format | None = None
    ) -> None:
        """Deliver until the cursor is at the end."""
        delivery = self.delivery(peer, limits, form=form)
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(delivery.run)
                await self.settle_all()
                nursery.cancel_scope.cancel()
        assert peer.open == 0

    async def settle_all(self) -> None:
        """Wait until the cursor is at the end."""
        while self.cursor < self.buffer.end:
            await self.buffer.wait_settled()
        # The settler counts after it has moved the cursor.
        await trio.testing.wait_all_tasks_blocked()

    @property
    def counts(self) -> SinkCounts:
        return self.buffer.cursor("s").counts

    @property
    def cursor(self) -> int:
        return self.buffer.cursor("s").next_sequence

    def letters(self) -> list[tuple[int, str, bytes, bytes]]:
        query = "SELECT sequence, code, record, message FROM dead_letters ORDER BY sequence"
        with closing(sqlite3.connect(self.state_dir / "buffer.db")) as beside:
            return beside.execute(query).fetchall()


class UnreadableRecord:
    """A buffer with one record that is never read, without threads: a clock may jump."""

    end = 2

    def cursor(self, sink: str) -> SinkCursor:
        return SinkCursor(sink, 1, 1, SinkPolicy(), SinkCounts())

    async def read(self, sequence: int) -> list[Batch]:
        await trio.sleep_forever()

    def advance(self, sink: str, next_sequence: int, outcome: Outcome) -> None:
        raise AssertionError("nothing was delivered")

    async def records(self, wanted: Set[int]) -> dict[int, Batch]:
        raise AssertionError("nothing was refused")

    async def store_dead_letters(
        self, letters: list[DeadLetter], next_sequence: int, outcome: Outcome
    ) -> None:
        raise AssertionError("nothing was refused")


class InMemory(UnreadableRecord):
    """A buffer in which each record is a batch of its own, without threads: a clock may jump."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self._grown, self._cursor = Broadcast(), super().cursor("s")

    @property
    def end(self) -> int:  # type: ignore[override]  # it grows
        return 1 + len(self.batches)

    def add(self, record: bytes) -> None:
        self.batches.append(Batch(self.end, 1, "app", time.time(), record + b"\n"))
        self._grown.wake_all()

    def cursor(self, sink: str) -> SinkCursor:
        return self._cursor

    async def read(self, sequence: int) -> list[Batch]:
        while sequence >= self.end:
            await self._grown.wait()
        return [self.batches[sequence - 1]]

    def advance(self, sink: str, next_sequence: int, outcome: Outcome) -> None:
        self._cursor.pass_records(next_sequence, outcome)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with DiskBuffer(
        tmp_path / "state", max_size_bytes=1 << 30, keep_s=1e9, stats=BufferStats()
    ) as buffer:
        buffer.set_sinks({"s": SinkPolicy(drop_oldest=True)})
        yield Rig(buffer, tmp_path / "state")


# -- the plain path -------------------------------------------------------


async def test_records_are_delivered_once_and_in_order_when_all_is_well(rig: Rig) -> None:
    for n in range(20):
        await rig.add(*(f"event {n} {i}" for i in range(5)))
    peer = Peer()
    await rig.deliver(peer)
    expected = [f"event {n} {i}".encode() for n in range(20) for i in range(5)]
    assert peer.confirmed == peer.sent == expected
    assert (rig.counts.delivered, rig.stats.state, rig.stats.retries) == (100, "up", 0)
    assert sum(rig.stats.delivery_s.counts) == 100


async def test_batches_that_are_confirmed_when_they_are_sent_are_settled_in_order(rig: Rig) -> None:
    for n in range(20):
        await rig.add("skip" if n % 5 == 4 else f"event {n}")
    peer = PromptPeer()
    await rig.deliver(peer)
    assert peer.confirmed == peer.sent == [b"event %d" % n for n in range(20) if n % 5 != 4]
    assert (rig.counts.delivered, rig.counts.filtered, rig.cursor) == (16, 4, 21)


async def test_the_sender_settles_all_that_is_confirmed_when_it_asks_after_a_batch(
    rig: Rig,
) -> None:
    peer = PromptPeer()
    peer.patience_s = 1e6  # the settler is never needed
    asked: list[Sequence[bytes]] = []

    def at_send(messages: Sequence[bytes]) -> Settlement:
        if b"more 19" in messages:
            assert rig.cursor == 1
            peer.patience_s = 0.0
        return ()

    def at_confirm(messages: Sequence[bytes]) -> Settlement:
        asked.append(messages)
        return ()

    peer.at_send, peer.at_confirm = at_send, at_confirm
    for n in range(20):
        await rig.add("skip" if n % 7 == 3 else f"event {n}", f"more {n}")
    await rig.deliver(peer, MANY_IN_FLIGHT)
    assert peer.confirmed == peer.sent
    assert (rig.counts.delivered, rig.counts.filtered, rig.cursor) == (37, 3, 41)
    assert not asked


async def test_a_delivery_that_is_stopped_settles_what_the_receiver_has_by_then(rig: Rig) -> None:
    peer = PromptPeer()
    peer.patience_s = 1e6
    for n in range(5):
        await rig.add(f"event {n}")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.delivery(peer, MANY_IN_FLIGHT).run)
        while len(peer.sent) < 5:
            await trio.testing.wait_all_tasks_blocked()
        assert rig.cursor == 1
        nursery.cancel_scope.cancel()
    # It has not taken the last one.
    assert (rig.cursor, rig.counts.delivered, peer.confirmed) == (5, 4, peer.sent[:4])


async def test_the_last_batch_is_settled_after_a_while_though_none_follows(rig: Rig) -> None:
    peer = PromptPeer()
    peer.patience_s = 0.001
    await rig.add("alone")
    await rig.deliver(peer)
    assert (peer.confirmed, rig.counts.delivered) == ([b"alone"], 1)


async def test_filtered_records_are_passed_and_counted(rig: Rig) -> None:
    await rig.add("skip 1", "a", "skip 2")
    await rig.add("skip 3", "skip 4")
    await rig.add("b")
    peer = Peer()
    await rig.deliver(peer)
    assert peer.confirmed == [b"a", b"b"]
    assert (rig.counts.filtered, rig.counts.delivered) == (4, 2)


async def test_delivery_begins_in_the_middle_of_a_batch(rig: Rig) -> None:
    await rig.add("a", "b", "c", "skip", "d")
    advance(rig.buffer, "s", 3)
    peer = Peer()
    await rig.deliver(peer)
    assert peer.confirmed == [b"c", b"d"]
    assert rig.counts.filtered == 1


async def test_the_cursor_stays_before_what_is_not_confirmed(rig: Rig) -> None:
    await rig.add("a", "b")
    reached = trio.Event()

    class Silent(Peer):
        async def confirm(self, ticket: list[bytes]) -> Settlement:
            reached.set()
            await trio.sleep_forever()
            raise AssertionError

    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.delivery(Silent()).run)
        await reached.wait()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert rig.cursor == 1


# -- runs -----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
async def test_no_run_is_over_its_limits_and_none_loses_a_record(rig: Rig, seed: int) -> None:
    rng = random.Random(seed)
    limits = BatchLimits(rng.randint(1, 7), rng.randint(20, 120), rng.choice([0.0, 0.001]))
    assert limits.max_events is not None
    assert limits.max_bytes is not None
    expected = []
    for _ in range(8):
        names = [
            rng.choice(["skip", "e"]) + "x" * rng.randint(1, 60) for _ in range(rng.randint(1, 9))
        ]
        expected += [name.encode() for name in names if name.startswith("e")]
        await rig.add(*names)
    peer = Peer()
    await rig.deliver(peer, limits)
    assert peer.confirmed == expected
    for run in peer.runs:
        assert len(run) <= limits.max_events
        assert len(run) == 1 or sum(map(len, run)) + len(run) <= limits.max_bytes


async def test_an_event_after_a_pause_goes_at_once_and_those_behind_it_fill_a_run(rig: Rig) -> None:
    peer = Peer()
    delivery = rig.delivery(peer, BatchLimits(3, 1000, max_wait_s=1e9))
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(delivery.run)
            for name in "abcd":
                await rig.add(name)
                if name == "a":
                    await rig.settle_all()
            await rig.settle_all()
            nursery.cancel_scope.cancel()
    assert peer.runs == [[b"a"], [b"b", b"c", b"d"]]


async def test_a_run_that_is_not_full_is_sent_when_it_has_waited_long_enough(rig: Rig) -> None:
    peer = Peer()
    delivery = rig.delivery(peer, BatchLimits(100, 1000, max_wait_s=0.01))
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(delivery.run)
            for name in "ab":
                await rig.add(name)
                await rig.settle_all()
            nursery.cancel_scope.cancel()
    assert peer.runs == [[b"a"], [b"b"]]


async def test_a_sink_that_gathers_a_trickle_reads_it_when_a_request_begins_and_when_it_is_due(
    autojump_clock: trio.testing.MockClock,
) -> None:
    turns, came, went = set[float](), dict[bytes, float](), dict[bytes, float]()

    class Noting(Words):
        def decode(self, batch: Batch) -> DecodedBatch:
            turns.add(trio.current_time())
            return super().decode(batch)

    def at_send(messages: Sequence[bytes]) -> Settlement:
        went.update(dict.fromkeys(messages, trio.current_time()))
        return ()

    peer, buffer = Peer(at_send), InMemory()
    events: Any = Keep()
    cache = FormatCache(Formatter({"s": SinkFormat(events, Raw(), 100)}, {}, Noting()))
    limits = BatchLimits(100, 10_000, max_wait_s=0.1)
    delivery = Delivery("s", peer, cache.reader("s"), limits, buffer, SinkStats("s"), QUICK)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(delivery.run)
        await trio.testing.wait_all_tasks_blocked()
        for n in range(200):
            came[b"%d" % n] = trio.current_time()
            buffer.add(b"%d" % n)
            await trio.sleep(0.02)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert peer.confirmed == [*came]
    assert all(went[message] - came[message] <= 0.1001 for message in came)
    assert len(turns) <= 2 * len(peer.runs) < 120


async def test_messages_over_the_limit_are_cut_and_counted_once(rig: Rig) -> None:
    await rig.add("x" * 101, "y" * 100)
    verdicts = itertools.chain([SinkWaits("first")], itertools.repeat(None))

    def at_confirm(messages: Sequence[bytes]) -> Settlement:
        if (error := next(verdicts)) is not None:
            raise error
        return ()

    peer = Peer(at_confirm=at_confirm)
    await rig.deliver(peer)
    assert [len(message) for message in peer.confirmed] == [100, 100]
    assert peer.confirmed[0].endswith(b"[cut]")
    assert rig.stats.truncated_messages == 1


# -- waiting and holding --------------------------------------------------


async def test_a_wait_in_the_middle_sends_again_from_the_cursor(rig: Rig) -> None:
    for n in range(6):
        await rig.add(f"event {n}")
    confirmed: list[int] = []

    def at_confirm(messages: Sequence[bytes]) -> Settlement:
        confirmed.append(1)
        if len(confirmed) == 3:
            raise SinkWaits("the connection broke")
        return ()

    peer = Peer(at_confirm=at_confirm)
    await rig.deliver(peer)
    assert peer.confirmed == [b"event %d" % n for n in range(6)]
    assert (peer.sessions, rig.stats.retries, rig.counts.delivered) == (2, 1, 6)


async def test_a_dead_peer_is_asked_again_until_it_lives(rig: Rig) -> None:
    await rig.add("a")
    peer = Peer()
    attempts = iter(range(100))

    def connect() -> None:
        if next(attempts) < 5:
            raise SinkWaits("refused")

    peer.connect = connect
    with capture_logs() as logs:
        await rig.deliver(peer)
    assert peer.confirmed == [b"a"]
    assert rig.stats.retries == 5
    said = [line["event"] for line in logs]
    assert said == ["sink waiting", "sink up"]  # once each, however often it was tried


async def test_holding_beats_waiting_when_both_tasks_fail_at_once(rig: Rig) -> None:
    await rig.add("a")
    gate = trio.Event()

    class Torn(Peer):
        async def send(self, messages: Sequence[bytes]) -> list[bytes]:
            try:
                gate.set()
                await trio.sleep_forever()
            finally:
                raise SinkWaits("gone")

        @asynccontextmanager
        async def session(self, report: Report = no_report) -> AsyncIterator[Peer]:
            async with trio.open_nursery() as nursery:

                async def fail() -> None:
                    await gate.wait()
                    raise SinkHolds("forbidden", advice="ask for rights")

                nursery.start_soon(fail)
                yield self

    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.delivery(Torn()).run)
        await gate.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert (rig.stats.state, rig.stats.reason) == ("holding", "forbidden; ask for rights")
        nursery.cancel_scope.cancel()


async def test_a_stop_beside_a_failure_is_a_stop(rig: Rig) -> None:
    await rig.add("a")
    stop = trio.CancelScope()

    def at_send(messages: Sequence[bytes]) -> Settlement:
        stop.cancel()
        raise SinkWaits("broken in the same moment")

    with stop:
        await rig.delivery(Peer(at_send)).run()
    assert stop.cancelled_caught


async def test_a_held_sink_is_asked_again_after_a_while_and_one_that_asked_for_time_gets_it(
    rig: Rig, autojump_clock: trio.testing.MockClock
) -> None:
    attempts: list[float] = []
    errors = [
        SinkHolds("bad token", advice="fix it"), SinkWaits("busy", after_s=300),
        SinkWaits("busy", after_s=1e12), SinkWaits("busy"),
    ]  # fmt: skip

    def connect() -> None:
        attempts.append(trio.current_time())
        raise errors[len(attempts) - 1] if len(attempts) <= len(errors) else SinkWaits("enough")

    peer, limits = Peer(), BatchLimits()
    peer.connect = connect
    delivery = Delivery(
        "s", peer, rig.reader(), limits, UnreadableRecord(), rig.stats, Retry(1.0, 2.0)
    )
    with trio.move_on_after(2000):
        await delivery.run()
    pauses = [round(b - a, 3) for a, b in itertools.pairwise(attempts)]
    assert pauses[:3] == [HOLD_PROBE_S, 300, 900]
    assert all(1.0 <= pause <= 2.0 for pause in pauses[3:])


async def test_a_peer_that_closes_idle_connections_is_not_called_down(
    rig: Rig, autojump_clock: trio.testing.MockClock
) -> None:
    class ClosesIdle(Peer):
        @asynccontextmanager
        async def session(self, report: Report = no_report) -> AsyncIterator[Peer]:
            async with super().session(report):
                async with trio.open_nursery() as nursery:

                    async def close() -> None:
                        await trio.sleep(30)
                        raise SinkWaits("the peer closed the connection")

                    nursery.start_soon(close)
                    yield self

    peer = ClosesIdle()
    with capture_logs() as logs, trio.move_on_after(310):
        await rig.delivery(peer, retry=Retry(1.0, 60.0)).run()
    assert peer.sessions == 10
    assert (rig.stats.state, rig.stats.retries) == ("up", 0)
    assert [line["event"] for line in logs] == ["sink up"]


class LazyPeer(Peer):
    """Opening a session shows nothing of it."""

    connects_lazily: Literal[True] = True


async def test_a_sink_without_a_connection_is_connecting_until_something_is_taken(
    rig: Rig,
) -> None:
    peer = LazyPeer()
    peer.at_confirm = lambda ticket: [
        Refusal(index, "400", "bad") for index, message in enumerate(ticket) if b"bad" in message
    ]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.delivery(peer).run)
        await trio.testing.wait_all_tasks_blocked()
        assert rig.stats.state == "connecting"
        await rig.add("bad")
        await rig.settle_all()
        assert rig.stats.state == "waiting"
        assert "the last one with 400 bad" in rig.stats.reason
        await rig.add("bad", "good")
        await rig.settle_all()
        assert rig.stats.state == "up"
        await rig.add("bad")
        await rig.settle_all()
        assert rig.stats.state == "up"
        nursery.cancel_scope.cancel()


async def test_a_peer_that_does_not_answer_is_called_down_though_nothing_waits_for_it(
    rig: Rig, autojump_clock: trio.testing.MockClock
) -> None:
    class Unreachable(Peer):
        @asynccontextmanager
        async def session(self, report: Report = no_report) -> AsyncIterator[Peer]:
            await trio.sleep(30)
            raise SinkWaits("no answer within 30s")
            yield self

    with capture_logs() as logs, trio.move_on_after(40):
        await rig.delivery(Unreachable(), retry=Retry(1.0, 60.0)).run()
    assert (rig.stats.state, rig.stats.reason) == ("waiting", "no answer within 30s")
    assert [line["event"] for line in logs] == ["sink waiting"]


async def test_a_peer_that_closes_at_once_is_asked_ever_more_seldom(
    rig: Rig, autojump_clock: trio.testing.MockClock
) -> None:
    peer = Peer()

    def connect() -> None:
        raise SinkWaits("closed at once")

    peer.connect = connect
    with trio.move_on_after(600):
        await rig.delivery(peer, retry=Retry(1.0, 60.0)).run()
    assert 10 < rig.stats.retries < 30


@pytest.mark.parametrize(
    ("failures", "low_s", "high_s"),
    [(1, 0.5, 1), (2, 1, 2), (5, 8, 16), (7, 30, 60), (10**6, 30, 60)],
)
def test_retry_delays_double_up_to_the_limit_with_jitter(
    failures: int, low_s: float, high_s: float
) -> None:
    assert delay_s(failures, 1.0, 60.0, random=lambda: 0.0) == low_s
    assert delay_s(failures, 1.0, 60.0, random=lambda: 1.0) == high_s


async def test_filtered_records_are_passed_though_the_peer_is_down(rig: Rig) -> None:
    await rig.add("skip 1", "skip 2")
    await rig.add("skip 3", "wanted", "skip 4")
    peer = Peer()

    def connect() -> None:
        raise SinkHolds("down", advice="wait")

    peer.connect = connect
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.delivery(peer).run)
        with trio.fail_after(10):
            while rig.cursor < 4:
                await rig.buffer.wait_settled()
        await trio.testing.wait_all_tasks_blocked()
        assert (rig.cursor, rig.counts.filtered) == (4, 3)
        nursery.cancel_scope.cancel()
    peer.connect = lambda: None
    await rig.deliver(peer)
    assert (rig.counts.filtered, rig.counts.delivered) == (4, 1)


async def test_a_sink_that_waits_reads_nothing_more_at_its_next_attempts(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.add("skip 1", "wanted")
    reads: list[int] = []
    read = rig.buffer.read

    async def counted(sequence: int) -> list[Batch]:
        reads.append(sequence)
        return await read(sequence)

    monkeypatch.setattr(rig.buffer, "read", counted)
    peer = Peer()

    def connect() -> None:
        if rig.stats.retries < 20:
            raise SinkWaits("down")

    peer.connect = connect
    await rig.deliver(peer)
    assert rig.stats.retries == 20
    assert reads[0] == 1  # in the first pause, which finds what is wanted
    assert set(reads[1:]) == {2, 3}
    assert reads.count(2) == 1  # by the attempt that got through


# -- refusals -------------------------------------------------------------


def is_bad(message: bytes) -> bool:
    return message.startswith(b"bad")


@pytest.mark.parametrize("where", ["send", "confirm"])
@pytest.mark.parametrize("seed", range(30))
async def test_halving_finds_exactly_the_culprits_of_any_subset(
    rig: Rig, seed: int, where: str
) -> None:
    rng = random.Random(seed)
    share = rng.choice([0.01, 0.1, 0.3, 0.5])
    names = [f"{'bad' if rng.random() < share else 'good'} {n}" for n in range(60)]
    names[0] = "good 0"
    await rig.add(names[0])
    for start in range(1, 60, 20):
        await rig.add(*names[start : start + 20])
    verdict = refuses(is_bad)
    peer = Peer(verdict) if where == "send" else Peer(at_confirm=verdict)
    await rig.deliver(peer, BatchLimits(60, 10_000, 0.0))
    good = [name.encode() for name in names if name.startswith("good")]
    bad = [(n, "400", name.encode(), name.encode())
           for n, name in enumerate(names, 1) if name.startswith("bad")]  # fmt: skip
    assert sorted(peer.confirmed) == sorted(good)
    assert rig.letters() == bad
    assert (rig.counts.delivered, rig.counts.refused) == (len(good), len(bad))
    assert rig.stats.retries == 0


@pytest.mark.parametrize(
    ("culprits", "most_requests"),
    # Halving both sides everywhere would ask some 17, 70, 370 and 860 times.
    [(1, 20), (5, 70), (50, 330), (250, 840)],
)
async def test_culprits_cost_requests_by_their_number_and_hardly_by_the_run(
    rig: Rig, culprits: int, most_requests: int
) -> None:
    bad = set(random.Random(1).sample(range(500), culprits))
    names = [f"{'bad' if n in bad else 'good'} {n}" for n in range(500)]
    await rig.add("good")
    await rig.add(*names)
    asked = 0

    def verdict(messages: Sequence[bytes]) -> Settlement:
        nonlocal asked
        asked += 1
        return refuses(is_bad)(messages)

    await rig.deliver(Peer(verdict), BatchLimits(500, 10_000, 0.0))
    assert rig.counts.refused == culprits
    assert asked <= most_requests


async def test_each_request_for_the_culprits_of_a_batch_is_a_sign_of_life(rig: Rig) -> None:
    """Thousands of them take minutes: the watchdog must not take the sink for stuck."""
    await rig.add("good", "bad", *["good"] * 6)
    seen: list[tuple[float, str]] = []

    def verdict(messages: Sequence[bytes]) -> Settlement:
        seen.append((rig.stats.progress_at, rig.stats.last_error))
        rig.stats.progress_at = -1.0
        return refuses(is_bad)(messages)

    await rig.deliver(Peer(at_confirm=verdict), BatchLimits(100, 10_000, 0.0))
    assert len(seen) > 4
    assert min(at for at, _ in seen) >= 0
    assert "refused a batch" in seen[1][1]
    assert seen[1][1].endswith("400 bad event")


async def test_many_bad_events_before_a_good_one_do_not_hold_the_sink(rig: Rig) -> None:
    await rig.add(*[f"bad {n}" for n in range(12)], *["good"] * 88)
    peer = Peer(refuses(is_bad))
    await rig.deliver(peer, BatchLimits(100, 10_000, 0.0))
    assert peer.confirmed == [b"good"] * 88
    assert len(rig.letters()) == 12


@pytest.mark.parametrize("per_run", [1, 100])
async def test_a_peer_that_refuses_everything_is_held_and_not_hammered(
    rig: Rig, per_run: int
) -> None:
    await rig.add(*[f"bad {n}" for n in range(100)])
    asked: list[int] = []

    def verdict(messages: Sequence[bytes]) -> Settlement:
        asked.append(len(messages))
        raise BatchRefused(code="400", reason="this is no CEF")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.delivery(Peer(verdict), BatchLimits(per_run, 10_000, 0.0)).run)
        with trio.fail_after(10):
            while rig.stats.state != "holding":
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert "refused each of 10" in rig.stats.reason
    assert "this is no CEF" in rig.stats.reason
    assert "over HTTP, `compression`" in rig.stats.reason
    assert len(asked) < 40
    assert len(rig.letters()) < 10
    assert rig.cursor == len(rig.letters()) + 1


async def test_single_refusals_that_the_peer_names_become_dead_letters(rig: Rig) -> None:
    await rig.add("a", "bad", "c")

    def at_confirm(messages: Sequence[bytes]) -> Settlement:
        return [Refusal(i, "6", "blank") for i, m in enumerate(messages) if is_bad(m)]

    peer = Peer(at_confirm=at_confirm)
    await rig.deliver(peer)
    assert peer.confirmed == [b"a", b"c"]
    assert rig.letters() == [(2, "6", b"bad", b"bad")]


async def test_a_duplicate_is_a_delivery_only_of_what_was_sent_before(rig: Rig) -> None:
    await rig.add("stored before this process began")
    lost = [True]

    def at_confirm(messages: Sequence[bytes]) -> Settlement:
        if b"answer is lost" in messages and lost:
            lost.clear()
            raise SinkWaits("no answer")
        return [Refusal(i, "409", "is there", duplicate=True) for i in range(len(messages))]

    peer = Peer(at_confirm=at_confirm)
    delivery = rig.delivery(peer)
    await rig.add("answer is lost")
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(delivery.run)
            with trio.fail_after(20):
                await rig.settle_all()
                await rig.add("a repeat", "another repeat")
                await rig.settle_all()
            nursery.cancel_scope.cancel()
    assert (rig.counts.delivered, rig.counts.duplicates, rig.counts.refused) == (2, 2, 0)
    assert rig.cursor == rig.buffer.end
    said = [log for log in logs if log["event"] == "duplicate records"]
    assert [(log["records"], log["first_sequence"]) for log in said] == [(2, 3)]


async def test_a_receiver_that_has_everything_already_does_not_expect_another_format(
    rig: Rig,
) -> None:
    """A second relay beside this one makes each event a duplicate: not a reason to hold."""
    peer = Peer(at_confirm=lambda messages: [Refusal(0, "409", "is there", duplicate=True)])
    await rig.add(*map(str, range(30)))
    await rig.deliver(peer, BatchLimits(max_events=1, max_bytes=1000))
    assert rig.stats.state == "up"


async def test_a_refused_record_that_was_dropped_meanwhile_is_buried_without_its_bytes(
    rig: Rig,
) -> None:
    await rig.add("bad", "b")
    dropped = trio.Event()

    class Late(Peer):
        async def confirm(self, ticket: list[bytes]) -> Settlement:
            await dropped.wait()
            return [Refusal(0, "400", "bad")]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.delivery(Late()).run)
        await trio.testing.wait_all_tasks_blocked()
        advance(rig.buffer, "s", rig.buffer.end)
        await rig.buffer.retention.delete(float("inf"))
        dropped.set()
        with trio.fail_after(10):
            while not rig.letters():
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert rig.letters() == [(1, "400", b"", b"bad")]
    assert rig.cursor == rig.buffer.end


async def test_a_wait_while_a_refused_run_is_halved_begins_again_at_the_cursor(rig: Rig) -> None:
    await rig.add("a", "bad", "c", "d")
    asked = itertools.count(1)

    def verdict(messages: Sequence[bytes]) -> Settlement:
        if next(asked) == 3:
            raise SinkWaits("broken")
        return refuses(is_bad)(messages)

    peer = Peer(verdict)
    await rig.deliver(peer)
    assert set(peer.confirmed) == {b"a", b"c", b"d"}
    assert [sequence for sequence, *_ in rig.letters()] == [2]


# -- our own bugs ---------------------------------------------------------


async def test_a_record_that_a_format_fails_on_becomes_a_dead_letter_and_the_rest_goes_on(
    rig: Rig,
) -> None:
    await rig.add("a", "bug in format", "skip", "c")
    await rig.add("bug in format again")
    peer = Peer()
    with capture_logs() as logs:
        await rig.deliver(peer, form=Buggy())
    assert peer.confirmed == [b"a", b"c"]
    assert rig.letters() == [
        (2, "internal", b"bug in format", b""), (5, "internal", b"bug in format again", b""),
    ]  # fmt: skip
    assert (rig.counts.delivered, rig.counts.refused, rig.counts.filtered) == (2, 2, 1)
    line = next(line for line in logs if "format failed" in line["event"])
    assert (line["first_sequence"], line["last_sequence"], line["failed"]) == (1, 4, [2])


async def test_a_record_that_a_decoder_fails_on_is_passed_on_as_an_unparsed_record(
    rig: Rig,
) -> None:
    await rig.add("a", "bug in decoder", "c")
    batch = (await rig.buffer.read(1))[0]
    errors: list[InternalError] = []
    decoded = Formatter({}, {}, Words()).decode(batch, errors)
    assert [event.type for event in decoded.events] == ["a", UNPARSED, "c"]
    assert decoded.events[1].message == "bug in decoder"
    assert None not in (decoded.events[1].id, decoded.events[1].time, decoded.events[1].severity)
    assert errors[0].facts["failed"] == [2]
    peer = Peer()
    with capture_logs() as logs:
        await rig.deliver(peer)
    (line,) = [line for line in logs if "decoder failed" in line["event"]]
    assert "ValueError: a bug" in line["exception"]
    assert peer.confirmed == [b"a", b"bug in decoder", b"c"]


async def test_cancelling_at_any_checkpoint_closes_the_connection_and_loses_nothing(
    rig: Rig,
) -> None:
    names = [f"{'bad' if n % 7 == 3 else 'good'} {n}" for n in range(30)]
    await rig.add(*names)
    peer = Peer(refuses(is_bad))
    for checkpoints in range(0, 60, 3):
        async with trio.open_nursery() as nursery:
            delivery = rig.delivery(peer, BatchLimits(10, 1000, 0.0))
            nursery.start_soon(delivery.run)
            for _ in range(checkpoints):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert peer.open == 0
    if rig.cursor < rig.buffer.end:
        await rig.deliver(peer, BatchLimits(10, 1000, 0.0))
    assert set(peer.confirmed) == {name.encode() for name in names if name.startswith("good")}
    assert [sequence for sequence, *_ in rig.letters()] == [
        n for n, name in enumerate(names, 1) if name.startswith("bad")
    ]
