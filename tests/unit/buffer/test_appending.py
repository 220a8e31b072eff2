"""Appending by a committer: begun in the step of whoever has records, ended when it returned."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.buffer.reserve import EmergencyReserve
from siemrelay.buffer.rows import StoredCursor
from siemrelay.buffer.sink_cursor import SinkPolicy
from siemrelay.core.event import Batch
from siemrelay.pipeline.intake.intake import Committer, SourceIntake
from siemrelay.sources.contract import Position, Records
from siemrelay.telemetry.stats import BufferStats, SourceStats, Stats
from tests.support.buffers import advance


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[DiskBuffer]:
    with DiskBuffer(tmp_path, max_size_bytes=1 << 30, keep_s=1e9, stats=BufferStats()) as made:
        made.set_sinks({"s": SinkPolicy()})
        yield made


def query(state_dir: Path, text: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(state_dir / "buffer.db")) as connection:
        return connection.execute(text).fetchall()


def line(offset: int = 1) -> Records:
    return Records(b"x\n", 1, (Position("file", {"offset": offset}),))


@asynccontextmanager
async def committing(buffer: DiskBuffer) -> AsyncIterator[tuple[SourceIntake, trio.Nursery]]:
    """A source's intake and the nursery of its committer, which is cancelled in the end."""
    committer = Committer(buffer, Stats(sources={"a": SourceStats("a")}), 0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(committer.run)
        await wait_all_tasks_blocked()
        yield committer.intake("a"), nursery
        nursery.cancel_scope.cancel()


async def test_a_lone_record_is_begun_in_the_step_of_its_source_and_counts_once_it_is_stored(
    buffer: DiskBuffer,
) -> None:
    async with committing(buffer) as (intake, _):
        await intake.offer(line())
        assert (buffer.appending.under_way, buffer.end) == (True, 1)
        await intake.settled()
        assert (buffer.appending.under_way, buffer.end) == (False, 2)


async def test_a_record_that_comes_while_something_else_is_written_is_stored_after_it(
    buffer: DiskBuffer,
) -> None:
    async with committing(buffer) as (intake, nursery):
        advance(buffer, "s", 1)
        nursery.start_soon(buffer.retention.delete, 0.0)
        await trio.lowlevel.checkpoint()
        for offset in (1, 2):
            await intake.offer(line(offset))
        await intake.settled()
        assert buffer.end == 3


async def test_a_cancelled_committer_ends_the_commit_that_has_begun(
    buffer: DiskBuffer, tmp_path: Path
) -> None:
    async with committing(buffer) as (intake, _):
        await intake.offer(line())
    assert buffer.end == 2
    assert query(tmp_path, "SELECT count(*) FROM batches") == [(1,)]
    await buffer.append([Batch(2, 1, "a", 1.0, b"y\n")], {})  # no lock is held


async def test_a_cursor_that_no_record_takes_along_is_stored_at_the_next_full_second(
    buffer: DiskBuffer, tmp_path: Path, mock_clock: MockClock
) -> None:
    await buffer.append([Batch(1, 1, "a", 1.0, b"x\n")], {})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(buffer.flusher.run, buffer.retention.reclaim)
        mock_clock.jump(0.5)
        advance(buffer, "s", 2)
        await wait_all_tasks_blocked()
        stored = "SELECT next_sequence FROM cursors"
        assert query(tmp_path, stored) == [(1,)]
        mock_clock.jump(0.5)
        while query(tmp_path, stored) != [(2,)]:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("batches", [0, 1, 2, 20])
@pytest.mark.parametrize("sources", ["a", "ab"])
def test_records_positions_cursors_and_counts_of_a_commit_are_all_stored(
    buffer: DiskBuffer, tmp_path: Path, batches: int, sources: str
) -> None:
    store = buffer._store
    some = [Batch(n + 1, 1, "a", 1.0, b"x\n") for n in range(batches)]
    places: dict[tuple[str, str], dict[str, int] | None] = {
        (source, key): {"offset": 1} for source in sources for key in ("one", "two")
    }
    store.append([], {("a", "gone"): {"offset": 9}}, {}, {})
    store.append(some, places | {("a", "gone"): None}, {"s": StoredCursor(7, 7)}, {"a": 5, "b": 6})
    assert query(tmp_path, "SELECT count(*) FROM batches") == [(batches,)]
    assert query(tmp_path, "SELECT source, key FROM positions ORDER BY 1, 2") == sorted(places)
    assert query(tmp_path, "SELECT next_sequence FROM cursors WHERE sink = 's'") == [(7,)]
    counts = "SELECT value FROM facts WHERE name IN ('filtered:a', 'filtered:b') ORDER BY value"
    assert query(tmp_path, counts) == [(5,), (6,)]


def test_a_disk_with_plenty_of_room_is_looked_at_once_a_second_and_a_small_one_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve, free_bytes, looks = EmergencyReserve(tmp_path, 1 << 20), 1 << 40, 0

    def statvfs(path: str) -> Any:
        nonlocal looks
        looks += 1
        return os.statvfs_result((1, 1, 0, 0, free_bytes, 0, 0, 0, 0, 0))

    monkeypatch.setattr(os, "statvfs", statvfs)
    assert not any(reserve.is_spent(now) for now in (10.0, 10.5, 10.9))
    assert looks == 1
    free_bytes = 1 << 10
    assert [reserve.is_spent(now) for now in (11.0, 11.1, 11.2)] == [True] * 3
    assert looks == 4
