"""Workers format as the relay does; killed, stopped or broken, they lose and double nothing."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import accumulate
from pathlib import Path

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.buffer.sink_cursor import SinkPolicy
from siemrelay.core.event import Batch, Selection
from siemrelay.core.event_types import Catalogue
from siemrelay.core.filters import EventFilter, EventsOptions
from siemrelay.decoders.contract import Decoder
from siemrelay.decoders.text import TEXT
from siemrelay.pipeline.delivery import Delivery
from siemrelay.pipeline.format_cache import FormatCache
from siemrelay.pipeline.formatting.formatter import Formatter
from siemrelay.pipeline.formatting.messages import FormattedBatch
from siemrelay.pipeline.formatting.sink_format import SinkFormat
from siemrelay.pipeline.workers import pool as pool_module
from siemrelay.pipeline.workers import worker as worker_module
from siemrelay.pipeline.workers.frames import Job, Tables
from siemrelay.pipeline.workers.pool import PendingBatch, WorkerPool
from siemrelay.pipeline.workers.worker import Worker
from siemrelay.sinks.contract import BatchLimits
from siemrelay.telemetry.stats import BufferStats, SinkStats, WorkerStats
from tests.unit.pipeline.test_delivery import QUICK, Peer

PATIENCE_S = 60


class Copied:
    """A format that writes every record as it is, like `raw`, but is asked to."""

    fields: frozenset[str] = frozenset()
    members = None

    def encode(self, selection: Selection) -> list[bytes]:
        return [bytes(record) for record in selection.received]


def formatter() -> Formatter:
    """One sink, `s`, that takes every record as it is."""
    everything = EventFilter(EventsOptions(), Catalogue(()))
    decoder: Decoder = TEXT.build({}, frozenset(), Catalogue(()))
    return Formatter({"s": SinkFormat(everything, Copied())}, {}, decoder)


class Poisonous(Formatter):
    """Ends its process at one record, unless that is the test's."""

    owner = 0

    def formatted(self, batch: Batch, wanted: Mapping[int, Collection[int]]) -> FormattedBatch:
        if b"poison" in batch.payload and os.getpid() != self.owner:
            os._exit(7)
        return super().formatted(batch, wanted)


def poisonous(owner: int) -> Formatter:
    """As `formatter`, for all processes but one."""
    made = Poisonous(formatter().sinks, {}, TEXT.build({}, frozenset(), Catalogue(())))
    made.owner = owner
    return made


TABLES = pickle.dumps(formatter)
POISON = pickle.dumps(partial(poisonous, os.getpid()))


def batch_of(first: int, text: str = "", records: int = 40) -> Batch:
    lines = [f"{first + n} {text}".ljust(1000) for n in range(records)]
    return Batch(first, records, "app", 1.7e9, "".join(f"{line}\n" for line in lines).encode())


@asynccontextmanager
async def workers(
    monkeypatch: pytest.MonkeyPatch, tables: bytes = TABLES, most: int = 1, busy_s: float = 0.0
) -> AsyncIterator[tuple[WorkerPool, WorkerStats]]:
    """A pool that starts its workers at once, with the first of them at work.

    Another one is started after `busy_s`.
    """
    monkeypatch.setattr(pool_module, "_BUSY_S", busy_s)
    for constant in ("_BEHIND_S", "_FIRST_PAUSE_S", "_LONGEST_PAUSE_S"):
        monkeypatch.setattr(pool_module, constant, 0.0)
    stats = WorkerStats()
    pool = WorkerPool(stats, most)
    pool.set_tables(lambda: tables)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run)
        await until(pool, lambda: pool.has_room)
        yield pool, stats
        nursery.cancel_scope.cancel()
    assert not stats.pids


async def until(pool: WorkerPool, true: Callable[[], bool]) -> None:
    """Wait for something that the pool's processes bring about, in the real world's time."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < give_up_at
        pool.note_behind()
        await trio.lowlevel.checkpoint()
        await trio.to_thread.run_sync(time.sleep, 0.005)


def expected(batch: Batch) -> FormattedBatch:
    """What a worker makes of a batch."""
    formatted = formatter().formatted(batch, {0: [0]})
    for made in formatted.groups.values():
        made.messages, made.sequences = list(made.messages), list(made.sequences)
    return formatted


async def ask(pool: WorkerPool, *batches: Batch) -> list[FormattedBatch | None]:
    """What comes back of these batches, in their order."""
    found: dict[int, FormattedBatch | None] = {}
    for batch in batches:

        def finished(result: FormattedBatch | None, first: int = batch.first_sequence) -> None:
            found[first] = result

        await until(pool, lambda: pool.has_room)
        pool.submit(PendingBatch(batch, {0: [0]}, finished))
    await until(pool, lambda: len(found) == len(batches))
    return [found[batch.first_sequence] for batch in batches]


async def test_a_worker_answers_in_order_what_the_relay_would_have_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batches = [batch_of(1, "ä"), batch_of(41, records=3000), batch_of(5000, records=1)]
    async with workers(monkeypatch) as (pool, stats):
        found = await ask(pool, *batches)
        assert stats.batches == len(batches)
    assert found == [expected(batch) for batch in batches]


async def test_every_answer_is_that_of_its_own_job() -> None:
    """More jobs at once than there are slots, some of them larger than a slot."""
    sizes = [1, 900, 30, 2500, 2, 2, 700, 2200, 400, 1, 1]  # records of 1,000 bytes
    firsts = accumulate(sizes, initial=1)
    batches = [batch_of(first, records=n) for first, n in zip(firsts, sizes, strict=False)]
    found: dict[int, FormattedBatch] = {}
    with Worker() as worker, trio.fail_after(PATIENCE_S):
        await worker.prepare(tables := Tables(TABLES, 700))

        async def ask_for(batch: Batch) -> None:
            answer = await worker.format(tables, Job(batch, {0: [0]}))
            found[batch.first_sequence] = answer.formatted

        async with trio.open_nursery() as nursery:
            for batch in batches:
                nursery.start_soon(ask_for, batch)
    assert [found[batch.first_sequence] for batch in batches] == list(map(expected, batches))


async def test_new_tables_count_for_every_batch_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async with workers(monkeypatch) as (pool, stats):
        (first,) = await ask(pool, batch_of(1))
        pid = {*stats.pids}
        pool.set_tables(lambda: POISON)
        (second,) = await ask(pool, batch_of(1))
        assert first == second
        assert pid == stats.pids
        assert await ask(pool, batch_of(41, "poison")) == [None]


async def test_a_batch_that_workers_die_of_is_left_to_the_relay_and_the_others_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with workers(monkeypatch, POISON) as (pool, stats):
        assert await ask(pool, batch_of(1, "poison")) == [None]
        assert stats.failures == 1
        await until(pool, lambda: pool.at_work > 0)
        (found,) = await ask(pool, batch_of(41))
        assert found is not None


async def test_a_worker_that_hangs_is_replaced(
    monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    async with workers(monkeypatch) as (pool, stats):
        (pid,) = stats.pids
        os.kill(pid, signal.SIGSTOP)
        found: list[FormattedBatch | None] = []
        pool.submit(PendingBatch(batch_of(1), {0: [0]}, found.append))
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(worker_module._HANGS_S + 1)
        await until(pool, lambda: found == [None])
        await until(pool, lambda: pool.at_work > 0)
        assert {pid} != stats.pids
        assert (await ask(pool, batch_of(1)))[0] is not None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGRTMIN + 1], ids=["named", "nameless"])
async def test_a_worker_that_a_signal_ends_is_replaced(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    async with workers(monkeypatch) as (pool, stats):
        (pid,) = stats.pids
        os.kill(pid, number)
        assert await ask(pool, batch_of(1)) == [None]
        assert stats.failures == 1
        await until(pool, lambda: pool.at_work > 0)
        assert {pid} != stats.pids
        assert (await ask(pool, batch_of(1)))[0] is not None


def test_a_worker_for_which_there_are_too_few_descriptors_keeps_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe, opened = os.pipe, list[int]()

    def scarce() -> tuple[int, int]:
        if opened:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        opened.extend(made := pipe())
        return made

    monkeypatch.setattr(os, "pipe", scarce)
    with pytest.raises(OSError, match="Too many open files"):
        Worker()
    assert len(opened) == 2
    for descriptor in opened:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


async def test_a_worker_ends_some_time_after_the_last_delivery_was_behind(
    monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    async with workers(monkeypatch) as (pool, stats):
        await ask(pool, batch_of(1))
        mock_clock.jump(pool_module._CALM_S - 0.1)
        await trio.testing.wait_all_tasks_blocked()
        assert pool.has_room
        # Some work at ordinary load keeps no worker.
        pool.submit(PendingBatch(batch_of(1), {0: [0]}, lambda found: None))
        mock_clock.jump(0.2)
        await trio.testing.wait_all_tasks_blocked()
        assert not stats.pids
        assert stats.failures == 0


@pytest.mark.parametrize(("waited_s", "workers_then"), [(0.0, 2), (0.8, 1)])
async def test_another_worker_starts_where_the_one_that_runs_has_batches_all_the_time(
    monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock, waited_s: float, workers_then: int
) -> None:
    """Also if it has room for more whenever a delivery looks."""
    async with workers(monkeypatch, most=2, busy_s=5.0) as (pool, stats):
        await ask(pool, batch_of(1))
        await trio.to_thread.run_sync(time.sleep, 0.8)  # before deliveries are behind: no matter
        mock_clock.jump(2 * pool_module._GAP_S)
        for step in range(16):
            assert pool.has_room
            pool.note_behind()
            if step == 2:
                await trio.to_thread.run_sync(time.sleep, waited_s)
            if step in (0, 2):
                await ask(pool, batch_of(41 + step))
            mock_clock.jump(0.4)
        await trio.testing.wait_all_tasks_blocked()
        assert len(stats.pids) == workers_then


async def test_workers_above_a_new_limit_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async with workers(monkeypatch) as (pool, stats):
        pool.set_most(0)
        await trio.testing.wait_all_tasks_blocked()
        assert not stats.pids
        assert not pool.at_work
        assert stats.failures == 0


async def test_signals_for_the_relay_leave_its_workers_alone() -> None:
    """Ctrl-C, a closed terminal and systemd's stop reach every process of the relay."""
    with Worker() as worker:
        for meant_for_the_relay in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(worker.pid, meant_for_the_relay)
        with trio.fail_after(PATIENCE_S):
            await worker.prepare(tables := Tables(TABLES, 700))
            os.kill(worker.pid, signal.SIGTERM)
            assert await worker.format(tables, Job(batch_of(1), {0: [0]}))


async def test_when_memory_runs_out_the_kernel_ends_a_worker_before_the_relay() -> None:
    with Worker() as worker, trio.fail_after(PATIENCE_S):
        await worker.prepare(Tables(TABLES, 700))
        assert _oom_score(worker.pid) == 500


def _oom_score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def test_a_worker_ends_with_its_relay_even_if_it_hangs(tmp_path: Path) -> None:
    hangs = tmp_path / "hangs"
    hang = f"import pathlib, time; pathlib.Path({str(hangs)!r}).touch(); time.sleep(600)"
    code = (
        "import functools, pickle, trio\n"
        "from siemrelay.pipeline.workers.frames import Tables\n"
        "from siemrelay.pipeline.workers.worker import Worker\n"
        "async def main():\n"
        "    worker = Worker()\n"
        "    print(worker.pid, flush=True)\n"
        f"    await worker.prepare(Tables(pickle.dumps(functools.partial(exec, {hang!r})), 700))\n"
        "trio.run(main)\n"
    )
    give_up_at = time.monotonic() + PATIENCE_S
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as relay:
        assert relay.stdout is not None
        pid = int(relay.stdout.readline())
        while not hangs.exists():
            assert time.monotonic() < give_up_at
            time.sleep(0.01)
        relay.kill()
    while _runs(pid):
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.slow)])
async def test_workers_killed_all_the_time_lose_and_double_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: int
) -> None:
    peer, killed, first = Peer(), 0, 1
    with DiskBuffer(tmp_path, max_size_bytes=1 << 30, keep_s=0.0, stats=BufferStats()) as buffer:
        buffer.set_sinks({"s": SinkPolicy()})
        async with workers(monkeypatch, most=2) as (pool, stats):
            reader = FormatCache(formatter(), pool).reader("s")
            delivery = Delivery("s", peer, reader, BatchLimits(), buffer, SinkStats("s"), QUICK)

            async def kill_in_the_middle() -> None:
                nonlocal killed
                while True:
                    seen = stats.batches
                    while stats.batches < seen + 3 or not stats.pids:
                        await trio.lowlevel.checkpoint()
                    with suppress(ProcessLookupError):  # the last one, whose end is being noted
                        os.kill(min(stats.pids), signal.SIGKILL)
                        killed += 1

            async with trio.open_nursery() as nursery:
                nursery.start_soon(kill_in_the_middle)
                nursery.start_soon(delivery.run)
                with trio.fail_after(PATIENCE_S * kills):
                    # A kill that finds its worker idle is no failure: one must meet a batch.
                    while killed < kills or not stats.failures:
                        await until(pool, lambda: pool.at_work > 0)
                        for _ in range(6):
                            batch = batch_of(first)
                            await buffer.append([batch], {})
                            first = batch.next_sequence
                        while buffer.cursor("s").next_sequence < buffer.end:
                            await buffer.wait_settled()
                nursery.cancel_scope.cancel()
    records = [line for n in range(1, first, 40) for line in batch_of(n).records()]
    assert peer.confirmed == records
