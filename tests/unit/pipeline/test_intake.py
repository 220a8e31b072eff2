"""Records on their way into a real buffer: shared commits, order, positions, room."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.buffer.sink_cursor import SinkPolicy
from siemrelay.config.load import load_text
from siemrelay.core.event import Batch
from siemrelay.core.event_types import OWN_SOURCE
from siemrelay.pipeline.intake.commit_group import FULL_BYTES
from siemrelay.pipeline.intake.intake import Committer, SourceIntake
from siemrelay.pipeline.intake.source_filter import Filtered
from siemrelay.relay.assembly import Assembly
from siemrelay.relay.own_events import OwnEvents
from siemrelay.sources.contract import Position, Records, joined
from siemrelay.telemetry.health import stuck
from siemrelay.telemetry.stats import SinkStats, SourceStats, Stats
from tests.support.buffers import advance
from tests.support.mounts import small_disk


class Rig:
    """A buffer with one sink `s`, sources `a` and `b`, and a running committer."""

    def __init__(self, buffer: DiskBuffer, stats: Stats, batch_window_s: float) -> None:
        self.buffer, self.stats = buffer, stats
        self.committer = Committer(buffer, stats, batch_window_s)
        self.a, self.b = self.committer.intake("a"), self.committer.intake("b")

    async def stored(self) -> list[Batch]:
        found: list[Batch] = []
        position = 1
        while position < self.buffer.end:
            found += await self.buffer.read(position)
            position = found[-1].next_sequence
        return found


@asynccontextmanager
async def rig_on(
    state_dir: Path,
    *,
    running: bool = True,
    max_size_bytes: int = 1 << 30,
    batch_window_s: float = 0.0,
) -> AsyncIterator[Rig]:
    stats = Stats(sources={name: SourceStats(name) for name in "ab"})
    with DiskBuffer(
        state_dir, max_size_bytes=max_size_bytes, keep_s=1e9, stats=stats.buffer
    ) as buffer:
        buffer.set_sinks({"s": SinkPolicy()})
        rig = Rig(buffer, stats, batch_window_s)
        async with trio.open_nursery() as nursery:
            if running:
                nursery.start_soon(rig.committer.run)
            yield rig
            nursery.cancel_scope.cancel()


def records(*lines: bytes, offset: int | None = None, part: int | None = None) -> Records:
    positions = () if offset is None else (Position("file", {"offset": offset}),)
    return Records(b"".join(line + b"\n" for line in lines), len(lines), positions, part)


async def test_stored_means_on_disk(tmp_path: Path) -> None:
    async with rig_on(tmp_path) as rig:
        await rig.a.store(records(b"one", b"two", offset=8))
        assert rig.buffer.end == 3
        assert rig.buffer.positions("a") == {"file": {"offset": 8}}
        assert (rig.stats.sources["a"].records, rig.stats.sources["a"].bytes) == (2, 8)
        assert rig.stats.sources["a"].last_record_at > 0


async def test_callers_at_the_same_time_share_commits(tmp_path: Path) -> None:
    async with rig_on(tmp_path) as rig:
        async with trio.open_nursery() as nursery:
            for n in range(500):
                intake = rig.a if n % 2 else rig.b
                nursery.start_soon(intake.store, records(b"%d" % n))
        assert rig.buffer.end == 501
        assert rig.stats.buffer.commits <= 5


async def test_a_thousand_lines_one_by_one_are_stored_in_some_fifty_commits(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with rig_on(tmp_path, batch_window_s=0.02) as rig:
        end_at, lines = trio.current_time() + 1, 0

        async def trickle(intake: SourceIntake) -> None:
            nonlocal lines
            while trio.current_time() < end_at:
                await trio.sleep(0.002)
                await intake.turn()
                await intake.offer(records(b"line"))
                lines += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle, rig.a)
            nursery.start_soon(trickle, rig.b)
        await rig.a.settled()
        assert rig.buffer.end == lines + 1
        assert rig.stats.buffer.commits <= 1 / 0.02 + 2


async def test_who_waits_for_the_disk_does_not_wait_for_others(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with rig_on(tmp_path, batch_window_s=1.0) as rig:
        began = trio.current_time()
        for _ in range(10):
            await rig.a.store(records(b"posted"))
        assert trio.current_time() - began < 1.0


async def test_each_sources_records_stay_in_the_order_it_offered_them(tmp_path: Path) -> None:
    async with rig_on(tmp_path) as rig:

        async def offer(intake_name: str) -> None:
            intake = rig.a if intake_name == "a" else rig.b
            for n in range(200):
                await intake.offer(records(b"%b%d" % (intake_name.encode(), n), offset=n))
                if n % 7 == 0:
                    await trio.lowlevel.checkpoint()
            await intake.settled()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(offer, "a")
            nursery.start_soon(offer, "b")
        stored = await rig.stored()
        for source in "ab":
            lines = [r for batch in stored if batch.source == source for r in batch.records()]
            assert lines == [b"%b%d" % (source.encode(), n) for n in range(200)]
            assert rig.buffer.positions(source) == {"file": {"offset": 199}}


@pytest.mark.parametrize("line", [b"", b"x" * 200], ids=["empty lines", "lines"])
async def test_a_hand_over_of_many_records_is_cut_into_rows_of_one_commit(
    tmp_path: Path, line: bytes
) -> None:
    lines = [b"%d" % n if line and n % 5000 == 0 else line for n in range(10_000)]
    async with rig_on(tmp_path) as rig:
        before = rig.stats.buffer.commits
        await rig.a.store(records(b"first", offset=1), records(*lines, offset=2))
        assert rig.stats.buffer.commits == before + 1
        rows = await rig.stored()
        assert [record for row in rows for record in row.records()] == [b"first", *lines]
        assert max(row.count for row in rows) <= 2048
        assert rig.buffer.positions("a") == {"file": {"offset": 2}}
        assert rig.stats.sources["a"].records == 10_001


async def test_small_hand_overs_become_one_row_but_never_across_sources_or_parts(
    tmp_path: Path,
) -> None:
    async with rig_on(tmp_path, running=False) as rig:
        await rig.a.offer(records(b"1"))
        await rig.a.offer(Records(b"", 0))
        await rig.a.offer(records(b"2", b"3"))
        await rig.b.offer(records(b"4"))
        await rig.a.offer(records(b"5"))
        await rig.a.offer(records(b"piece", part=1))
        await rig.a.offer(records(b"piece", part=2))
        await rig.a.offer(records(b"6"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.committer.run)
            await rig.a.settled()
            nursery.cancel_scope.cancel()
        stored = [(b.first_sequence, b.source, b.records(), b.part) for b in await rig.stored()]
        assert stored == [
            (1, "a", [b"1", b"2", b"3", b"5"], None),
            (5, "a", [b"piece"], 1),
            (6, "a", [b"piece"], 2),
            (7, "a", [b"6"], None),
            (8, "b", [b"4"], None),
        ]
        assert rig.stats.buffer.commits == 1


@given(st.lists(st.binary(max_size=6)))
def test_records_of_any_bytes_come_back_as_they_were(some: list[bytes]) -> None:
    made = joined(some)
    batches = [Batch(1, records.count, "a", 0.0, records.payload) for records in made]
    assert [record for batch in batches for record in batch.records()] == some
    assert len(made) <= 1 or any(b"\n" in record for record in some)


async def test_records_with_line_feeds_share_a_row_with_none_but_those_they_came_with(
    tmp_path: Path,
) -> None:
    async with rig_on(tmp_path) as rig:
        some = [b"1", b"two\nlines", b"3", b"4"]
        await rig.a.store(*joined([b"0"]), *joined(some), *joined([b"5"]), *joined([b"6"]))
        assert [b.records() for b in await rig.stored()] == [[b"0"], some, [b"5", b"6"]]


async def test_many_records_with_line_feeds_are_cut_into_rows_between_them(tmp_path: Path) -> None:
    async with rig_on(tmp_path) as rig:
        some = [b"%d\nx" % n for n in range(5000)]
        await rig.a.store(*joined(some))
        assert [record for b in await rig.stored() for record in b.records()] == some


async def test_delivered_waits_for_the_slowest_sink_that_is_neither_disabled_nor_paused(
    tmp_path: Path,
) -> None:
    async with rig_on(tmp_path) as rig:
        rig.buffer.set_sinks(
            {
                "fast": SinkPolicy(start_at_oldest=False),
                "slow": SinkPolicy(start_at_oldest=False),
                "off": SinkPolicy(start_at_oldest=False, enabled=False),
                "paused": SinkPolicy(start_at_oldest=False),
            }
        )
        for name in ("fast", "slow", "off", "paused"):
            rig.stats.sinks[name] = SinkStats(name)
        stored = await rig.a.store(*joined([b"1", b"2"]))
        done = trio.Event()

        async def wait() -> None:
            await rig.a.delivered(stored)
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            advance(rig.buffer, "fast", stored)
            advance(rig.buffer, "slow", stored - 1)
            await wait_all_tasks_blocked()
            assert not done.is_set()
            advance(rig.buffer, "slow", stored)
            await wait_all_tasks_blocked()
            assert not done.is_set()
            rig.buffer.set_enabled("paused", enabled=False)
            with trio.fail_after(5):
                await done.wait()


async def test_a_row_grows_no_further_than_its_limit(tmp_path: Path) -> None:
    async with rig_on(tmp_path, running=False) as rig:
        for _ in range(4):
            await rig.a.offer(records(b"x" * 200_000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.committer.run)
            await rig.a.settled()
            nursery.cancel_scope.cancel()
        assert [batch.count for batch in await rig.stored()] == [2, 2]


async def test_positions_alone_are_stored(tmp_path: Path) -> None:
    async with rig_on(tmp_path) as rig:
        await rig.a.store(Records(b"", 0, (Position("x", {"offset": 1}),)))
        await rig.a.store(Records(b"", 0, (Position("y", {"offset": 2}), Position("x", None))))
        assert rig.buffer.positions("a") == {"y": {"offset": 2}}
        assert rig.a.positions() == {"y": {"offset": 2}}
        assert rig.buffer.end == 1
        assert rig.stats.sources["a"].last_record_at == 0


async def test_positions_of_the_last_run_are_there_at_the_next(tmp_path: Path) -> None:
    async with rig_on(tmp_path) as rig:
        await rig.a.store(records(b"one", offset=4))
    async with rig_on(tmp_path) as rig:
        assert rig.a.positions() == {"file": {"offset": 4}}
        assert rig.b.positions() == {}


async def test_offering_waits_for_room_only(tmp_path: Path) -> None:
    async with rig_on(tmp_path, running=False) as rig:
        offered = 0

        async def offer(intake_records: Records) -> None:
            nonlocal offered
            while True:
                await rig.a.offer(intake_records)
                offered += 1

        for what in (records(b"x" * 100_000), Records(b"", 0, (Position("x", {"offset": 1}),))):
            offered = 0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(offer, what)
                await wait_all_tasks_blocked()
                before = offered
                async with trio.open_nursery() as running:
                    running.start_soon(rig.committer.run)
                    with trio.fail_after(10):
                        while offered == before:
                            await trio.lowlevel.checkpoint()
                    running.cancel_scope.cancel()
                nursery.cancel_scope.cancel()


async def test_an_offer_that_is_cancelled_while_it_waits_was_not_made(tmp_path: Path) -> None:
    async with rig_on(tmp_path, running=False) as rig:
        await rig.a.offer(records(b"x" * FULL_BYTES, offset=1))
        with trio.move_on_after(0) as scope:
            await rig.a.offer(records(b"not taken", offset=2))
        assert scope.cancelled_caught
        assert rig.a.positions() == {"file": {"offset": 1}}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.committer.run)
            await rig.a.settled()
            nursery.cancel_scope.cancel()
        assert rig.buffer.end == 2
        assert rig.buffer.positions("a") == {"file": {"offset": 1}}


async def test_what_a_cancelled_offer_did_not_store_counts_for_no_limit(tmp_path: Path) -> None:
    text = """
        sources: {a: {type: stdin, limit: 2/d}}
        sinks: {s: {server: 127.0.0.1}}
        """
    limit = Assembly(load_text(text, "x.yaml").config).source_filter("a")
    some = records(b'{"type": "User Logged In"}')
    async with rig_on(tmp_path, running=False) as rig:
        await rig.b.offer(records(b"x" * FULL_BYTES))
        limited = rig.committer.intake("a", limit)
        with trio.move_on_after(0) as scope:
            await limited.offer(some, some)
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.committer.run)
            await limited.store(some, some, some)
            nursery.cancel_scope.cancel()
        assert rig.buffer.end == 4
        stats = rig.stats.sources["a"]
        assert (stats.records, stats.filtered, stats.limited) == (2, 1, {"User Logged In": 1})


async def test_long_records_are_redacted_in_a_thread_and_the_others_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
        sources: {a: {type: stdin, redact: [{kind: email}]}}
        sinks: {s: {server: 127.0.0.1}}
        """
    redacting = Assembly(load_text(text, "x.yaml").config).source_filter("a")
    assert redacting is not None
    apply, threads = redacting.apply, list[tuple[int, bool]]()
    running = 0

    def applied(some: Records) -> Filtered:
        nonlocal running
        assert running == 0
        running += 1
        threads.append((some.count, threading.current_thread() is threading.main_thread()))
        found = apply(some)
        running -= 1
        return found

    monkeypatch.setattr(redacting, "apply", applied)
    long = records(b'{"message": "' + b"to ada@example.com " * 50_000 + b'"}')
    short = records(b'{"message": "to ada@example.com"}', b'{"message": "to bob@example.com"}')
    async with rig_on(tmp_path) as rig:
        intake = rig.committer.intake("a", redacting)
        await intake.store(short)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(intake.store, long)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(intake.store, short)
        await intake.store(short)
        assert threads[0] == threads[3] == (2, True)
        assert threads[1] == (1, False)
        assert b"example.com" not in b"".join(batch.payload for batch in await rig.stored())
        assert rig.stats.sources["a"].redacted == 7


async def test_a_store_that_is_cancelled_leaves_the_others_alone(tmp_path: Path) -> None:
    async with rig_on(tmp_path) as rig:
        async with trio.open_nursery() as nursery:

            async def cancelled() -> None:
                with trio.move_on_after(0):
                    await rig.a.store(records(b"either way"))

            nursery.start_soon(cancelled)
            nursery.start_soon(rig.b.store, records(b"stored"))
        sources = [batch.source for batch in await rig.stored()]
        assert "b" in sources
        await rig.a.store(records(b"goes on"))


async def test_a_full_buffer_stops_intake_and_says_so_until_there_is_room(tmp_path: Path) -> None:
    async with rig_on(tmp_path, max_size_bytes=10_000) as rig:
        await rig.a.store(records(b"first"))
        with capture_logs() as logs:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(rig.a.store, records(b"x" * 50_000, offset=7))
                with trio.fail_after(10):
                    while not rig.stats.buffer.full:
                        await trio.lowlevel.checkpoint()
                assert rig.buffer.end == 2
                assert rig.buffer.positions("a") == {}
                advance(rig.buffer, "s", 2)  # the sink has come so far: its records may go
        assert rig.buffer.end == 3
        assert rig.buffer.positions("a") == {"file": {"offset": 7}}
        assert not rig.stats.buffer.full
        assert [line["event"] for line in logs] == ["buffer is full", "buffer has room again"]


async def test_a_full_disk_stops_intake_until_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        async with rig_on(disk.path / "state") as rig:
            disk.fill()
            async with trio.open_nursery() as nursery:
                with capture_logs() as logs:
                    nursery.start_soon(
                        rig.a.store, records(b"".join(b"%d" % n for n in range(99_999)))
                    )
                    with trio.fail_after(10):
                        while not rig.stats.buffer.full:
                            await trio.lowlevel.checkpoint()
                    await wait_all_tasks_blocked()
                assert rig.buffer.end == 1
                assert "free space" in logs[0]["advice"]
                disk.free()
            assert rig.buffer.end == 2


async def test_nothing_pending_is_settled_at_once(tmp_path: Path) -> None:
    async with rig_on(tmp_path, running=False) as rig:
        await rig.a.settled()


@pytest.mark.parametrize("size_bytes", [1, 10_000_000])
async def test_what_is_reported_beside_records_is_counted(tmp_path: Path, size_bytes: int) -> None:
    async with rig_on(tmp_path, running=False) as rig:
        rig.a.lag(size_bytes)
        rig.a.oversize(size_bytes)
        source = rig.stats.sources["a"]
        assert (source.lag_bytes, source.oversize) == (size_bytes, 1)
        assert source.progress_at > 0


async def test_the_relays_own_events_never_count_as_a_source_that_is_stuck(tmp_path: Path) -> None:
    async with rig_on(tmp_path) as rig:
        await OwnEvents(rig.committer, rig.buffer, rig.stats).store(b'{"type":"Relay Started"}')
        rig.stats.loop_at = a_week_later = trio.current_time() + 7 * 86400
        assert not [line for line in stuck(rig.stats, a_week_later) if OWN_SOURCE in line]
        assert [line for line in stuck(rig.stats, a_week_later) if "source a" in line]
