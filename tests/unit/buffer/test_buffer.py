"""The disk buffer on a real file system: what is stored, who may delete, what a crash leaves."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

import pytest
import structlog
import trio
from structlog.testing import LogCapture
from trio.testing import MockClock, wait_all_tasks_blocked

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.buffer.dead_letters import DeadLetter
from siemrelay.buffer.recent import KEPT_BYTES
from siemrelay.buffer.rows import StoredCursor
from siemrelay.buffer.sink_cursor import Outcome, SinkPolicy
from siemrelay.buffer.sqlite.errors import SqliteErrors
from siemrelay.buffer.sqlite.schema import SCHEMA_VERSION
from siemrelay.buffer.sqlite.store import Store
from siemrelay.buffer.state_dir import lock_state_dir
from siemrelay.core.errors import BufferBroken, BufferFull, BufferMoved, DiskFull, StartRefused
from siemrelay.core.event import Batch
from siemrelay.telemetry.stats import BufferStats, SinkCounts
from tests.support.buffers import advance
from tests.support.mounts import small_disk

ROOMY_BYTES = 1 << 30
DAY_S = 86400.0


def opened(
    state_dir: Path, *, max_size_bytes: int = ROOMY_BYTES, keep_s: float = DAY_S,
    recent_bytes: int = KEPT_BYTES,
) -> DiskBuffer:  # fmt: skip
    return DiskBuffer(
        state_dir, max_size_bytes=max_size_bytes, keep_s=keep_s, stats=BufferStats(),
        recent_bytes=recent_bytes,
    )  # fmt: skip


def batch(
    first: int, count: int = 1, *, source: str = "app", at: float | None = None, size: int = 0
) -> Batch:
    payload = b"".join(
        b"%d %b\n" % (n, os.urandom(size).hex().encode()) for n in range(first, first + count)
    )
    return Batch(first, count, source, time.time() if at is None else at, payload)


async def add(
    buffer: DiskBuffer, count: int = 1, *, at: float | None = None, size: int = 0
) -> Batch:
    made = batch(buffer.end, count, at=at, size=size)
    await buffer.append([made], {})
    return made


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def buffer(state_dir: Path) -> Iterator[DiskBuffer]:
    with opened(state_dir) as made:
        made.set_sinks({"a": SinkPolicy(), "b": SinkPolicy()})
        yield made


@pytest.fixture
def log_output() -> Iterator[LogCapture]:
    before, capture = structlog.get_config(), LogCapture()
    structlog.configure(processors=[capture])
    yield capture
    structlog.configure(**before)


def rows(state_dir: Path, query: str) -> list[tuple[object, ...]]:
    """What another process sees: committed rows only."""
    connection = sqlite3.connect(state_dir / "buffer.db")
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def cursors_on_disk(state_dir: Path) -> dict[object, object]:
    pairs = rows(state_dir, "SELECT sink, next_sequence FROM cursors")
    return {pair[0]: pair[1] for pair in pairs}


# -- opening --------------------------------------------------------------


def test_the_directory_and_its_files_are_for_this_user_alone(state_dir: Path) -> None:
    before = os.umask(0)
    try:
        with opened(state_dir) as buffer:
            buffer.set_sinks({"a": SinkPolicy()})
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in state_dir.iterdir()}
    finally:
        os.umask(before)
    assert stat.S_IMODE(state_dir.stat().st_mode) == 0o700
    files = ["lock", "buffer.db", "buffer.db-wal", "buffer.db-shm", "high-watermark"]
    assert modes == dict.fromkeys(files, 0o600)


def test_a_second_relay_is_refused_with_the_process_that_holds_the_directory(
    state_dir: Path,
) -> None:
    with opened(state_dir):
        with pytest.raises(StartRefused, match=f"process {os.getpid()}"):
            opened(state_dir)
    with opened(state_dir):
        pass  # the lock went with the first


def test_a_file_of_a_newer_layout_is_refused_and_left_as_it_is(state_dir: Path) -> None:
    with opened(state_dir):
        pass
    connection = sqlite3.connect(state_dir / "buffer.db")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    for _ in range(2):  # the refusal lets go of the lock
        with pytest.raises(StartRefused, match="newer siemrelay"):
            opened(state_dir)


def test_a_file_that_is_no_database_is_a_broken_buffer_and_the_lock_is_released(
    state_dir: Path,
) -> None:
    state_dir.mkdir()
    (state_dir / "buffer.db").write_bytes(b"not a database, " * 100)
    for _ in range(2):
        with pytest.raises(BufferBroken, match="buffer salvage"):
            opened(state_dir)


def test_a_directory_that_cannot_be_made_refuses_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StartRefused, match="state_dir"):
        opened(tmp_path / "file" / "state")


def test_files_of_another_user_in_a_directory_that_is_ours_are_named(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    state_dir.mkdir()
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StartRefused, match="lock belongs to another user: chown -R"):
        lock_state_dir(state_dir)


async def test_a_full_disk_while_the_sinks_are_chosen_refuses_the_start(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        # The reserve has room for a few sinks, not for these.
        names = [f"sink {n:0>200000}" for n in range(100)]
        with opened(disk.path / "state") as buffer:
            disk.fill()
            with pytest.raises(StartRefused, match="make some MiB of room"):
                buffer.set_sinks(dict.fromkeys(names, SinkPolicy()))
            disk.free()


def test_a_folder_in_the_place_of_the_file_refuses_the_start_with_the_remedy(
    state_dir: Path,
) -> None:
    (state_dir / "buffer.db").mkdir(parents=True)
    with pytest.raises(StartRefused, match=r"Is a directory; move it away"):
        opened(state_dir)


# -- files that go away ---------------------------------------------------


def remove(state_dir: Path) -> None:
    shutil.rmtree(state_dir)


def rename(state_dir: Path) -> None:
    state_dir.rename(state_dir.with_name("elsewhere"))


def replace(state_dir: Path) -> None:
    rename(state_dir)
    with opened(state_dir) as other:
        other.set_sinks({"a": SinkPolicy()})


def remove_log(state_dir: Path) -> None:
    (state_dir / "buffer.db-wal").unlink()


@pytest.mark.parametrize("vanish", [remove, rename, replace, remove_log])
async def test_nothing_is_acknowledged_once_the_files_are_not_at_their_path(
    state_dir: Path, vanish: Callable[[Path], None]
) -> None:
    with opened(state_dir) as buffer:
        buffer.set_sinks({"a": SinkPolicy()})
        await add(buffer)
        vanish(state_dir)
        with pytest.raises(BufferMoved, match="removed, renamed or replaced"):
            await add(buffer)
        assert buffer.end == 2
        # Without traffic it is noticed by itself.
        with trio.fail_after(10), pytest.RaisesGroup(BufferMoved):
            await buffer.run()


# -- appending and reading ------------------------------------------------


async def test_records_and_positions_are_stored_in_one_transaction(
    buffer: DiskBuffer, state_dir: Path
) -> None:
    await buffer.append([batch(1, 3)], {("app", "file1"): {"offset": 30}})
    assert rows(state_dir, "SELECT first_sequence, count FROM batches") == [(1, 3)]
    assert buffer.positions("app") == {"file1": {"offset": 30}}
    # A transaction that fails stores neither.
    with pytest.raises(BufferBroken):
        await buffer.append([batch(4), batch(1)], {("app", "file1"): {"offset": 99}})
    assert rows(state_dir, "SELECT first_sequence, count FROM batches") == [(1, 3)]
    assert buffer.positions("app") == {"file1": {"offset": 30}}
    assert buffer.end == 4
    assert (await add(buffer)).first_sequence == 4


async def test_a_position_of_none_is_forgotten(buffer: DiskBuffer) -> None:
    await buffer.append([], {("app", "x"): {"offset": 1}, ("app", "y"): {"offset": 2}})
    await buffer.append([], {("app", "x"): None})
    assert buffer.positions("app") == {"y": {"offset": 2}}
    assert buffer.positions("other") == {}


async def test_a_position_may_hold_the_name_of_a_file_that_is_not_utf_8(
    buffer: DiskBuffer, state_dir: Path
) -> None:
    position = {"log": os.fsdecode(b"audit-\xff.log"), "ends": [[1, "é"]]}
    await buffer.append([], {("app", "x"): position})
    assert buffer.positions("app") == {"x": position}


async def test_a_commit_that_is_cancelled_while_it_runs_counts(buffer: DiskBuffer) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await buffer.append([batch(1, 3)], {})
        assert buffer.end == 4
        await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    await buffer.append([batch(4)], {})
    assert [found.next_sequence for found in await buffer.read(4)] == [5]


async def test_a_reader_never_sees_a_record_before_its_commit(state_dir: Path) -> None:
    with opened(state_dir) as buffer:
        buffer.set_sinks({"a": SinkPolicy()})
        await add(buffer, size=1 << 20)
        await add(buffer, size=1 << 20)  # the first has left the memory
        # The file may be ahead of what the relay knows, between a commit and its return.
        with closing(Store(state_dir / "buffer.db")) as store:
            store.append([batch(3)], {}, {}, {})
            assert [found.first_sequence for found in await buffer.read(1)] == [1]
            assert store.read(1, buffer.end, 1 << 30)[-1].next_sequence == buffer.end == 3
        with trio.move_on_after(0) as scope:
            await buffer.read(3)
        assert scope.cancelled_caught


async def test_readers_and_a_writer_at_once_never_meet_a_record_beyond_the_end(
    buffer: DiskBuffer,
) -> None:
    async def read_all(name: str, seen: list[int]) -> None:
        position = 1
        while position < 61:
            for found in await buffer.read(position):
                assert found.next_sequence <= buffer.end
                seen += range(max(found.first_sequence, position), found.next_sequence)
                position = found.next_sequence
                advance(buffer, name, position)

    seen: dict[str, list[int]] = {"a": [], "b": []}
    async with trio.open_nursery() as nursery:
        for name in seen:
            nursery.start_soon(read_all, name, seen[name])
        for _ in range(30):
            await add(buffer, 2, size=64 * 1024)
    assert seen == {"a": list(range(1, 61)), "b": list(range(1, 61))}


async def test_a_reader_waits_for_the_next_record(buffer: DiskBuffer) -> None:
    got: list[Batch] = []

    async def read() -> None:
        got.extend(await buffer.read(1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        assert got == []
        made = await add(buffer)
    assert got == [made]


async def test_what_is_read_from_disk_equals_what_was_stored(buffer: DiskBuffer) -> None:
    made = [await add(buffer, 3, size=200_000) for _ in range(8)]
    part = Batch(buffer.end, 1, "app", 5.0, b"piece\n", 7)
    await buffer.append([part], {})
    made.append(part)
    found: list[Batch] = []
    while len(found) < len(made):
        found += await buffer.read(found[-1].next_sequence if found else 1)
    assert found == made
    assert (await buffer.read(5))[0] == made[1]  # in the middle of a batch


async def test_records_are_found_by_their_sequence_and_none_where_one_is_gone(
    buffer: DiskBuffer,
) -> None:
    made = [await add(buffer, 3), await add(buffer, 2)]
    records = [*made[0].records(), *made[1].records()]
    found = await buffer.records({9, 4, 3, 2, 0})
    assert found.keys() == {2, 3, 4}
    for sequence, alone in found.items():
        assert (alone.first_sequence, alone.records()) == (sequence, [records[sequence - 1]])


@pytest.mark.parametrize("at", [0, 4, 5, 6, 8, 12, 30, -5, -1])
async def test_a_damaged_row_yields_as_many_records_that_say_so(state_dir: Path, at: int) -> None:
    with opened(state_dir) as buffer:
        buffer.set_sinks({"a": SinkPolicy()})
        await add(buffer, 3, size=100)
        await add(buffer, 2)
    connection = sqlite3.connect(state_dir / "buffer.db", isolation_level=None)
    (payload,) = connection.execute("SELECT payload FROM batches").fetchone()
    rotten = bytearray(payload)
    rotten[at] ^= 0xFF
    connection.execute("UPDATE batches SET payload = ? WHERE first_sequence = 1", (bytes(rotten),))
    connection.close()
    with opened(state_dir) as buffer:
        buffer.set_sinks({"a": SinkPolicy()})
        damaged, whole = await buffer.read(1)
        assert (damaged.first_sequence, damaged.count) == (1, 3)
        expected = [b"record %d was damaged on disk" % n for n in (1, 2, 3)]
        assert damaged.records() == expected
        assert whole.count == 2


# -- cursors --------------------------------------------------------------


async def test_cursors_survive_a_close_and_forgotten_sinks_are_named(state_dir: Path) -> None:
    with opened(state_dir) as buffer:
        assert buffer.set_sinks({"a": SinkPolicy(), "b": SinkPolicy()}) == []
        await add(buffer, 10)
        advance(buffer, "a", 4)
    with opened(state_dir) as buffer:
        assert buffer.set_sinks({"a": SinkPolicy(), "new": SinkPolicy(start_at_oldest=False)}) == [
            "b"
        ]
        assert buffer.cursor("a").next_sequence == 4
        assert buffer.cursor("new").next_sequence == 11  # starts at the end
    assert cursors_on_disk(state_dir) == {"a": 4, "new": 11}


async def test_a_cursor_never_moves_back_and_never_beyond_the_end(buffer: DiskBuffer) -> None:
    await add(buffer, 5)
    advance(buffer, "a", 4)
    advance(buffer, "a", 2)
    assert buffer.cursor("a").next_sequence == 4
    with pytest.raises(AssertionError):
        advance(buffer, "a", 7)


async def test_moving_cursors_are_stored_by_the_running_buffer(
    buffer: DiskBuffer, state_dir: Path
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(buffer.run)
        await add(buffer, 5)
        advance(buffer, "a", 6)
        with trio.fail_after(10):
            while cursors_on_disk(state_dir) != {
                "a": 6,
                "b": 1,
            }:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


async def test_moved_cursors_go_with_records_after_a_moment_or_once_they_passed_many(
    buffer: DiskBuffer, state_dir: Path, mock_clock: MockClock
) -> None:
    await add(buffer, 300)
    advance(buffer, "a", 2)
    await add(buffer)
    assert cursors_on_disk(state_dir)["a"] == 1
    mock_clock.jump(0.1)
    await add(buffer)
    assert cursors_on_disk(state_dir)["a"] == 2
    advance(buffer, "a", 202)
    await add(buffer)
    assert cursors_on_disk(state_dir)["a"] == 202


async def test_a_sink_that_is_renamed_while_its_cursor_waits_to_be_stored_keeps_it(
    state_dir: Path,
) -> None:
    sinks = {"a": SinkPolicy(), "b": SinkPolicy()}
    with opened(state_dir) as buffer:
        buffer.set_sinks(sinks)
        await add(buffer, 5)
        advance(buffer, "a", 3)
        await buffer.change_sinks({"new": SinkPolicy(), "b": SinkPolicy()}, {"a": "new"})
        advance(buffer, "new", 4)
    assert cursors_on_disk(state_dir) == {"new": 4, "b": 1}


async def test_a_sink_that_was_renamed_back_and_then_removed_has_no_cursor(state_dir: Path) -> None:
    with opened(state_dir) as buffer:
        buffer.set_sinks({"a": SinkPolicy()})
        await buffer.change_sinks({"b": SinkPolicy()}, {"a": "b"})
        await buffer.change_sinks({"a": SinkPolicy()}, {"b": "a"})
        assert buffer.find_cursor("b") is buffer.find_cursor("a")
        await buffer.change_sinks({"c": SinkPolicy()})
        assert buffer.find_cursor("a") is buffer.find_cursor("b") is None


async def test_a_cursor_that_moves_while_a_change_of_sinks_fails_is_stored_soon_after(
    state_dir: Path,
) -> None:
    sinks = {"a": SinkPolicy(), "b": SinkPolicy()}
    with opened(state_dir) as buffer:
        buffer.set_sinks(sinks)
        await add(buffer, 5)
        loop = trio.lowlevel.current_trio_token()

        def refuse(*changed: object) -> None:
            trio.from_thread.run_sync(advance, buffer, "a", 3, trio_token=loop)
            raise DiskFull("the disk is full")

        with patch.object(Store, "replace_cursors", refuse), pytest.raises(StartRefused):
            await buffer.change_sinks({"a": SinkPolicy()})
        await buffer.flusher.flush()
        assert cursors_on_disk(state_dir) == {"a": 3, "b": 1}


async def test_cursors_that_could_not_be_stored_are_stored_when_there_is_room_again(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path) as disk, opened(disk.path / "state") as buffer:
        buffer.set_sinks({"a": SinkPolicy(), "b": SinkPolicy()})
        await add(buffer, 5)
        disk.fill()
        advance(buffer, "a", 3)
        with pytest.raises(DiskFull):
            await buffer.flusher.flush()
        advance(buffer, "a", 5)
        disk.free()
        await buffer.flusher.flush()
        assert cursors_on_disk(disk.path / "state") == {"a": 5, "b": 1}


async def test_waiting_for_a_cursor_ends_when_one_moves(buffer: DiskBuffer) -> None:
    await add(buffer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(buffer.wait_settled)
        await wait_all_tasks_blocked()
        advance(buffer, "b", 2)


async def test_dead_letters_and_the_cursor_that_passes_them_are_stored_together(
    buffer: DiskBuffer, state_dir: Path
) -> None:
    await add(buffer, 5)
    letter = DeadLetter("a", 2, 1.0, "400", "bad", b"record", b"message")
    await buffer.store_dead_letters([letter], 3, Outcome(delivered=1, refused=1))
    columns = "sink, sequence, at, code, reason, record, message"
    assert rows(state_dir, f"SELECT {columns} FROM dead_letters") == [
        ("a", 2, 1.0, "400", "bad", b"record", b"message")
    ]
    assert rows(state_dir, "SELECT next_sequence FROM cursors WHERE sink = 'a'") == [(3,)]
    await buffer.note_commands()
    assert buffer.stats.dead_letters == {"a": 1}
    assert buffer.cursor("a").next_sequence == 3


async def test_burying_does_not_take_back_a_cursor_that_was_moved_to_make_room(
    buffer: DiskBuffer, state_dir: Path
) -> None:
    await add(buffer, 5)
    advance(buffer, "a", 5)
    await buffer.flusher.flush()
    await buffer.store_dead_letters(
        [DeadLetter("a", 2, 1.0, "400", "bad", b"", b"")], 3, Outcome(delivered=1, refused=1)
    )
    assert rows(state_dir, "SELECT next_sequence FROM cursors WHERE sink = 'a'") == [(5,)]


# -- counts ---------------------------------------------------------------


async def test_counts_are_stored_with_the_cursor_and_add_up_after_a_kill(
    state_dir: Path, tmp_path: Path
) -> None:
    with opened(state_dir) as buffer:
        buffer.set_sinks({"a": SinkPolicy(), "b": SinkPolicy()})
        await add(buffer, 10)
        buffer.advance("a", 4, Outcome(delivered=2, filtered=1, confirmed_at=5.0))
        buffer.advance("a", 6, Outcome(duplicates=2, confirmed_at=6.0))
        letter = DeadLetter("a", 6, 1.0, "400", "bad", b"record", b"message")
        await buffer.store_dead_letters([letter], 7, Outcome(refused=1, confirmed_at=7.0))
        buffer.advance("b", 3, Outcome(filtered=2))
        await buffer.append([batch(11, 5)], {}, {"app": 3})
        copied = tmp_path / "killed"
        shutil.copytree(state_dir, copied)
    with opened(copied) as buffer:
        assert buffer.source_counts["app"].records == 15
        assert buffer.source_counts["app"].filtered == 3
        buffer.set_sinks({"a": SinkPolicy(), "b": SinkPolicy(), "c": SinkPolicy()})
        assert buffer.cursor("a").counts == SinkCounts(
            delivered=2, duplicates=2, filtered=1, refused=1, last_success_at=7.0
        )
        for name in ("a", "b", "c"):
            cursor = buffer.cursor(name)
            assert cursor.counts.settled() == cursor.next_sequence - cursor.first_sequence


async def test_records_that_are_dropped_while_in_flight_are_counted_once(state_dir: Path) -> None:
    with opened(state_dir, max_size_bytes=300_000) as buffer:
        buffer.set_sinks({"a": SinkPolicy(drop_oldest=True)})
        for _ in range(3):
            await add(buffer, 2, size=40_000)
        assert await buffer.retention.make_room(200_000)
        dropped = buffer.cursor("a").counts.dropped
        assert dropped > 0
        buffer.advance("a", 1 + dropped, Outcome(delivered=dropped, confirmed_at=1.0))
        buffer.advance("a", buffer.end, Outcome(delivered=3, refused=1, filtered=2))
        counts = buffer.cursor("a").counts
        assert (counts.dropped, counts.lost) == (dropped, 0)
        assert counts.settled() == buffer.end - 1


async def test_records_that_nothing_accounts_for_are_counted_as_lost_and_logged(
    buffer: DiskBuffer, log_output: LogCapture
) -> None:
    await add(buffer, 10)
    buffer.advance("a", 6, Outcome(delivered=2))
    assert buffer.cursor("a").counts == SinkCounts(delivered=2, lost=3)
    (line,) = log_output.entries
    assert line["event"] == "stored records are missing on disk"
    assert (line["sink"], line["records"]) == ("a", 3)
    assert (line["from_sequence"], line["to_sequence"]) == (1, 5)


async def test_counts_of_commands_are_kept_by_the_relay_that_writes_beside_them(
    buffer: DiskBuffer, state_dir: Path
) -> None:
    await add(buffer, 5)
    letters = [DeadLetter("a", n, 1.0, "400", "bad", b"record", b"message") for n in (1, 2)]
    await buffer.store_dead_letters(letters, 3, Outcome(refused=2))
    with closing(Store(state_dir / "buffer.db")) as beside:
        beside.drop_letters("a", [1], delivered=True)
        beside.count_replayed("a", 4)
    advance(buffer, "a", 6)
    await buffer.append([batch(6)], {})
    await buffer.note_commands()
    assert buffer.stats.dead_letters == {"a": 1}
    assert buffer.cursor("a").counts == SinkCounts(delivered=3, refused=2, retried=1, replayed=4)


# -- deletion -------------------------------------------------------------


async def test_a_row_is_deleted_only_when_every_cursor_is_past_it_and_it_is_old(
    state_dir: Path,
) -> None:
    with opened(state_dir, keep_s=100) as buffer:
        buffer.set_sinks({"a": SinkPolicy(), "b": SinkPolicy()})
        old, now = time.time() - 1000, time.time()
        for at in (old, old, now):
            await add(buffer, 10, at=at)
        advance(buffer, "a", buffer.end)
        advance(buffer, "b", 15)  # holds the second
        assert await buffer.retention.delete(now - 100) > 0
        assert await buffer.retention.delete(now - 100) == 0
        assert buffer.oldest == 11
        advance(buffer, "b", buffer.end)
        assert await buffer.retention.delete(now - 100) > 0
        assert buffer.oldest == 21  # the third is kept for replay
        assert [found.first_sequence for found in await buffer.read(21)] == [21]


async def test_the_running_buffer_deletes_what_was_delivered_and_is_old(state_dir: Path) -> None:
    with opened(state_dir, keep_s=0) as buffer:
        buffer.set_sinks({"a": SinkPolicy()})
        await add(buffer, 10, at=time.time() - 5)
        advance(buffer, "a", buffer.end)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(buffer.run)
            with trio.fail_after(10):
                while buffer.oldest != buffer.end:
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert buffer.stats.size_bytes == 0
        assert buffer.stats.oldest_received_at is None


async def test_sequence_numbers_are_never_used_again_after_all_was_deleted_and_reopened(
    state_dir: Path,
) -> None:
    with opened(state_dir) as buffer:
        buffer.set_sinks({"a": SinkPolicy()})
        await add(buffer, 10)
        advance(buffer, "a", 11)
        await buffer.retention.delete(float("inf"))
    with opened(state_dir) as buffer:
        buffer.set_sinks({"a": SinkPolicy()})
        assert (buffer.oldest, buffer.end) == (11, 11)
        assert (await add(buffer)).first_sequence == 11
        assert [found.first_sequence for found in await buffer.read(3)] == [11]


async def test_the_size_is_the_same_after_a_restart_and_nothing_when_all_is_deleted(
    state_dir: Path,
) -> None:
    with opened(state_dir) as buffer:
        buffer.set_sinks({"a": SinkPolicy()})
        for size in (0, 10, 3000, 100_000):
            await add(buffer, 2, size=size)
        size_bytes = buffer.stats.size_bytes
        assert size_bytes > 100_000
    with opened(state_dir) as buffer:
        buffer.set_sinks({"a": SinkPolicy()})
        assert buffer.stats.size_bytes == size_bytes
        advance(buffer, "a", buffer.end)
        assert await buffer.retention.delete(float("inf")) == size_bytes
        assert buffer.stats.size_bytes == 0


async def test_room_is_made_of_what_was_delivered_before_anything_is_given_up(
    state_dir: Path,
) -> None:
    with opened(state_dir, max_size_bytes=500_000) as buffer:
        buffer.set_sinks({"a": SinkPolicy(drop_oldest=True)})
        for _ in range(4):
            await add(buffer, 1, size=100_000)
        advance(buffer, "a", 3)
        assert await buffer.retention.make_room(200_000)
        assert (buffer.oldest, buffer.cursor("a").counts.dropped) == (3, 0)


async def test_only_sinks_that_said_drop_oldest_give_up_records_and_they_are_counted(
    state_dir: Path,
) -> None:
    with opened(state_dir, max_size_bytes=300_000) as buffer:
        buffer.set_sinks({"drops": SinkPolicy(drop_oldest=True), "blocks": SinkPolicy()})
        for _ in range(3):
            await add(buffer, 2, size=40_000)
        assert not await buffer.retention.make_room(200_000)  # `blocks` holds them
        assert buffer.cursor("drops").counts.dropped == 0
        advance(buffer, "blocks", buffer.end)
        assert await buffer.retention.make_room(200_000)
        place = buffer.cursor("drops")
        assert place.counts.dropped == place.next_sequence - 1 > 0
        assert buffer.oldest <= place.next_sequence <= buffer.end


@pytest.mark.parametrize("drops", [False, True])
async def test_a_disabled_sink_gives_way_before_any_other_and_never_beyond_them(
    state_dir: Path, drops: bool
) -> None:
    with opened(state_dir, max_size_bytes=500_000) as buffer:
        buffer.set_sinks({"off": SinkPolicy(enabled=False), "on": SinkPolicy(drop_oldest=drops)})
        for _ in range(5):
            await add(buffer, 2, size=40_000)
        advance(buffer, "on", 6)  # in the middle of the third row
        assert buffer.holders() == ([] if drops else ["on"])  # it never waits for the other
        assert await buffer.retention.make_room(100_000)
        assert (buffer.cursor("off").counts.dropped, buffer.cursor("on").counts.dropped) == (4, 0)
        assert (buffer.cursor("off").next_sequence, buffer.oldest) == (5, 5)
        assert buffer.holders() == ([] if drops else ["on"])
        # Only the enabled sink's own policy can make more room.
        assert await buffer.retention.make_room(400_000) is drops
        assert (buffer.cursor("on").counts.dropped > 0) is drops
        assert buffer.cursor("off").next_sequence == (buffer.end if drops else 5)


async def test_on_a_full_disk_a_disabled_sink_gives_way_too(state_dir: Path) -> None:
    with opened(state_dir) as buffer:
        buffer.set_sinks({"off": SinkPolicy(enabled=False), "on": SinkPolicy()})
        await add(buffer, 2, size=40_000)
        assert not await buffer.retention.reclaim()
        advance(buffer, "on", buffer.end)
        assert await buffer.retention.reclaim()
        assert (buffer.cursor("off").counts.dropped, buffer.oldest) == (2, buffer.end)
        assert buffer.holders() == []


async def test_an_empty_buffer_takes_even_what_is_larger_than_its_limit(state_dir: Path) -> None:
    with opened(state_dir, max_size_bytes=1000) as buffer:
        buffer.set_sinks({"a": SinkPolicy()})
        assert await buffer.retention.make_room(1_000_000)
        await add(buffer, size=10_000)
        assert not await buffer.retention.make_room(1)


async def test_a_reader_whose_records_were_all_dropped_gets_past_them_at_once(
    state_dir: Path,
) -> None:
    with opened(state_dir, recent_bytes=0) as buffer:
        buffer.set_sinks({"a": SinkPolicy(drop_oldest=True)})
        await add(buffer, 5)
        await add(buffer, 5)
        advance(buffer, "a", buffer.end)
        await buffer.retention.delete(float("inf"))
        (nothing,) = await buffer.read(3)
        assert (nothing.count, nothing.next_sequence) == (0, buffer.end)


# -- other processes ------------------------------------------------------

LOOK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(*connection.execute(sys.argv[2]))
connection.close()
"""


def seen_by_another_process(state_dir: Path, query: str) -> str:
    command = [sys.executable, "-c", LOOK, str(state_dir / "buffer.db"), query]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


async def test_another_process_that_closes_the_file_leaves_the_log_in_place(
    buffer: DiskBuffer, state_dir: Path
) -> None:
    await add(buffer)
    log = (state_dir / "buffer.db-wal").stat().st_ino
    count = "SELECT sum(count) FROM batches"
    assert seen_by_another_process(state_dir, count) == "(1,)\n"
    await add(buffer)
    assert (state_dir / "buffer.db-wal").stat().st_ino == log
    assert seen_by_another_process(state_dir, count) == "(2,)\n"


# -- failures -------------------------------------------------------------


async def test_a_copy_made_in_mid_life_opens_with_all_that_was_acknowledged(
    buffer: DiskBuffer, state_dir: Path, tmp_path: Path
) -> None:
    for n in range(20):
        made = await add(buffer, 3)
        await buffer.append([], {("app", "file"): {"offset": n}})
        advance(buffer, "a", made.first_sequence)
        await buffer.flusher.flush()
    copied = tmp_path / "copied"
    shutil.copytree(state_dir, copied)  # what kill -9 leaves: the log was not copied back
    with opened(copied) as again:
        again.set_sinks({"a": SinkPolicy(), "b": SinkPolicy()})
        assert again.end == buffer.end == 61
        assert again.positions("app") == {"file": {"offset": 19}}
        assert again.cursor("a").next_sequence == 58
        assert sum(found.count for found in await again.read(1)) == 60


def test_a_store_on_a_full_file_system_says_so(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk, closing(Store(disk.path / "buffer.db")) as store:
        disk.fill()
        with pytest.raises(DiskFull):
            store.append([batch(1, size=1 << 20)], {("app", "x"): {"offset": 1}}, {}, {})
        assert store.opened().next_sequence == 1
        assert store.positions("app") == {}
        disk.free()
        store.append([batch(1, size=1 << 20)], {}, {}, {})
        assert store.opened().next_sequence == 2


async def test_records_go_on_where_they_were_once_the_disk_has_room_again(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk, opened(disk.path / "state") as buffer:
        buffer.set_sinks({"a": SinkPolicy()})
        disk.fill()
        made = batch(1, size=1 << 20)
        with pytest.raises(DiskFull):
            await buffer.append([made], {})
        assert buffer.end == 1
        disk.free()
        await buffer.append([made], {})
        assert await buffer.read(1) == [made]


def test_a_file_that_another_process_holds_locked_is_waited_for(state_dir: Path) -> None:
    state_dir.mkdir()
    store = Store(state_dir / "buffer.db", busy_s=0.001)
    other = sqlite3.connect(state_dir / "buffer.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(BufferFull, match="another process"):
        store.append([batch(1)], {}, {}, {})
    other.execute("ROLLBACK")
    store.append([batch(1)], {}, {}, {})
    other.close()
    store.close()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (sqlite3.SQLITE_FULL, DiskFull),
        (sqlite3.SQLITE_IOERR_SHMSIZE, DiskFull),
        (sqlite3.SQLITE_BUSY, BufferFull),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, BufferFull),
        (sqlite3.SQLITE_IOERR_FSYNC, BufferBroken),
        (sqlite3.SQLITE_IOERR_WRITE, BufferBroken),
        (sqlite3.SQLITE_CORRUPT, BufferBroken),
        (sqlite3.SQLITE_READONLY, BufferBroken),
    ],
)
def test_each_error_of_the_file_says_what_to_do_next(
    code: int, expected: type, tmp_path: Path
) -> None:
    error = sqlite3.OperationalError(os.strerror(errno.EIO))
    error.sqlite_errorcode = code
    assert type(SqliteErrors(tmp_path / "buffer.db").typed(error)) is expected


async def test_cancelling_leaves_no_lock_held_and_no_transaction_open(
    buffer: DiskBuffer, state_dir: Path
) -> None:
    letter = DeadLetter("a", 1, 1.0, "400", "bad", b"", b"")
    await add(buffer, 5)
    for checkpoints in range(6):
        for act in (
            lambda: buffer.append([batch(buffer.end)], {}),
            lambda: buffer.store_dead_letters([letter], 1, Outcome()),
            lambda: buffer.read(1),
            lambda: buffer.retention.make_room(1 << 40),
            buffer.flusher.flush,
            buffer.retention.reclaim,
        ):
            with trio.CancelScope() as scope:

                async def cancel_after(scope: trio.CancelScope, checkpoints: int) -> None:
                    for _ in range(checkpoints):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cancel_after, scope, checkpoints)
                    advance(buffer, "b", min(buffer.cursor("b").next_sequence + 1, buffer.end))
                    await act()
            # Another process could begin a transaction at once, and so can the buffer.
            beside = sqlite3.connect(state_dir / "buffer.db", timeout=0, isolation_level=None)
            with closing(beside):
                beside.execute("BEGIN IMMEDIATE")
                beside.execute("ROLLBACK")
            with trio.fail_after(10):
                await buffer.append([], {})
    end = buffer.end
    await add(buffer)
    assert buffer.end == end + 1


def test_a_stored_cursor_has_the_counts_of_a_sink_in_their_order() -> None:
    sequences = ("next_sequence", "first_sequence")
    assert StoredCursor.__struct_fields__ == (
        *sequences,
        *SinkCounts.__struct_fields__,
        "stream",
    )


async def test_records_do_not_take_the_room_that_deletion_needs(tmp_path: Path) -> None:
    """The reserve is gone, as after a cursor that was stored with its room; some MiB are free."""
    with small_disk(tmp_path) as disk, opened(disk.path / "state", keep_s=0) as buffer:
        buffer.set_sinks({"off": SinkPolicy(enabled=False)})
        for _ in range(20):
            await buffer.append([batch(buffer.end, 8, size=20_000)], {})
        (disk.path / "state" / "reserve").unlink()
        disk.fill()
        disk.leave(3 << 20)
        refused = 0
        while refused < 10:
            try:
                await buffer.append([batch(buffer.end, 8, size=20_000)], {})
            except DiskFull:
                refused += 1
                assert await buffer.retention.reclaim(), (
                    f"nothing can be deleted any more ({refused})"
                )
