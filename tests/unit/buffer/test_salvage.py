"""A damaged buffer file: whatever page is destroyed, the rest is saved, and the relay goes on."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.buffer.dead_letters import DeadLetter
from siemrelay.buffer.salvage import Gap, Survey, put_in_place, salvage, survey
from siemrelay.buffer.sink_cursor import Outcome, SinkPolicy
from siemrelay.buffer.sqlite.schema import PAGE_BYTES
from siemrelay.core.errors import BufferBroken
from siemrelay.core.event import Batch
from siemrelay.telemetry.stats import BufferStats
from tests.support.buffers import advance

RNG = random.Random(11)
SINKS = {"a": SinkPolicy(), "b": SinkPolicy()}


def opened(state_dir: Path) -> DiskBuffer:
    return DiskBuffer(state_dir, max_size_bytes=1 << 30, keep_s=1e6, stats=BufferStats())


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """A stopped relay's: 120 small rows and 12 large ones; `a` has 20 records and `b` 99."""
    path = tmp_path / "state"
    clock = MockClock()
    trio.run(fill, path, clock, clock=clock)
    return path


async def fill(path: Path, clock: MockClock) -> None:
    with opened(path) as buffer:
        buffer.set_sinks(SINKS)
        for n in range(132):
            size = 60_000 if n % 11 == 10 else 300
            lines = [RNG.randbytes(size // 2).hex().encode() + b"\n" for _ in range(2)]
            batch = Batch(buffer.end, 2, "app", time.time(), b"".join(lines))
            await buffer.append([batch], {("app", f"file{n % 5}"): {"offset": n}})
        advance(buffer, "a", 20)
        advance(buffer, "b", 100)
        letter = DeadLetter("a", 20, 1.0, "400", "bad", b"record", RNG.randbytes(40_000))
        await buffer.store_dead_letters([letter], 21, Outcome(refused=1))
        clock.jump(1)  # cursors go with the first records after a moment
        await buffer.append([], {})


def rows(path: Path) -> dict[int, bytes]:
    with closing(sqlite3.connect(path)) as file:
        return dict(file.execute("SELECT first_sequence, payload FROM batches").fetchall())


def salvaged(state_dir: Path) -> Survey:
    path, new = state_dir / "buffer.db", state_dir / "buffer.db.salvaged"
    found = salvage(path, new)
    put_in_place(path, new)
    return found


def test_a_healthy_file_is_healthy_and_a_copy_of_it_equal(state_dir: Path) -> None:
    before = rows(state_dir / "buffer.db")
    found = survey(state_dir / "buffer.db", quiet=True)
    assert (found.healthy, found.records, found.end, found.gaps) == (True, 264, 265, [])
    assert (found.positions, found.dead_letters) == (5, 1)
    assert {name: cursor.next_sequence for name, cursor in found.cursors.items()} == {
        "a": 21, "b": 100,
    }  # fmt: skip
    assert salvaged(state_dir) == found
    assert rows(state_dir / "buffer.db") == before


def zeros(page: bytes) -> bytes:
    return bytes(len(page))


def noise(page: bytes) -> bytes:
    return RNG.randbytes(len(page))


def torn(page: bytes) -> bytes:
    return page[: len(page) // 2] + RNG.randbytes(len(page) // 2)


def flipped(page: bytes) -> bytes:
    at = RNG.randrange(len(page))
    return page[:at] + bytes([page[at] ^ 0xFF]) + page[at + 1 :]


@pytest.mark.parametrize("damage", [zeros, noise, torn, flipped])
async def test_whatever_page_is_damaged_only_what_was_on_it_is_lost(
    state_dir: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    original = (state_dir / "buffer.db").read_bytes()
    before = rows(state_dir / "buffer.db")
    numbers = list(range(len(original) // PAGE_BYTES))
    # The first pages are the schema's and the tables' roots; of the others a sample.
    for number in [*numbers[:9], *RNG.sample(numbers[9:], 5)]:
        page = original[number * PAGE_BYTES : (number + 1) * PAGE_BYTES]
        copy = tmp_path / f"damaged{number}"
        shutil.copytree(state_dir, copy)
        with (copy / "buffer.db").open("r+b") as file:
            file.seek(number * PAGE_BYTES)
            file.write(damage(page))
        found = salvaged(copy)
        after = rows(copy / "buffer.db")
        lost = {first for first, payload in before.items() if after.get(first) != payload}
        for first in lost:
            pieces = (before[first][at : at + 24] for at in range(0, len(before[first]) - 24, 8))
            assert any(piece in page for piece in pieces), (number, first)
        with opened(copy) as buffer:
            buffer.set_sinks(SINKS)
            assert buffer.end == 265
            for name, cursor in (("a", 21), ("b", 100)):
                assert buffer.cursor(name).next_sequence >= cursor
                assert found.cursors[name].next_sequence <= cursor
            waiting = {sequence for first in lost for sequence in (first, first + 1)}
            assert found.unreadable("b") == sum(sequence >= 100 for sequence in waiting)
            await buffer.append([Batch(265, 1, "app", 1.0, b"next\n")], {})
        shutil.rmtree(copy)


def test_what_is_missing_is_reported_for_each_sink(state_dir: Path) -> None:
    with closing(sqlite3.connect(state_dir / "buffer.db", isolation_level=None)) as file:
        file.execute("DELETE FROM batches WHERE first_sequence BETWEEN 31 AND 35")
        file.execute("UPDATE batches SET payload = x'00' WHERE first_sequence = 201")
    found = survey(state_dir / "buffer.db", quiet=False)
    assert found.gaps == [Gap(31, 36, "missing"), Gap(201, 202, "damaged")]
    assert (found.unreadable("a"), found.unreadable("b")) == (8, 2)
    assert not found.healthy


def test_what_root_salvages_stays_the_relays_users(state_dir: Path) -> None:
    user = 65534 if os.geteuid() == 0 else os.geteuid()  # only root can give a file away
    os.chown(state_dir / "buffer.db", user, -1)
    salvaged(state_dir)
    found = (state_dir / "buffer.db").stat()
    assert (found.st_uid, found.st_mode & 0o777) == (user, 0o600)


def test_damage_to_what_every_sink_has_is_damage_too(state_dir: Path) -> None:
    with closing(sqlite3.connect(state_dir / "buffer.db", isolation_level=None)) as file:
        file.execute("UPDATE batches SET payload = x'00' WHERE first_sequence IN (3, 7)")
        file.execute("DELETE FROM batches WHERE first_sequence < 3")  # its `keep` is over
    found = survey(state_dir / "buffer.db", quiet=False)
    assert found.gaps == [Gap(3, 4, "damaged"), Gap(7, 8, "damaged")]
    assert (found.unreadable("a"), found.unreadable("b"), found.healthy) == (0, 0, False)


def test_records_in_the_log_of_a_killed_relay_are_saved_too(
    state_dir: Path, tmp_path: Path
) -> None:
    killed = tmp_path / "killed"
    with closing(sqlite3.connect(state_dir / "buffer.db", isolation_level=None)) as file:
        file.execute("UPDATE facts SET value = 266 WHERE name = 'next_sequence'")
        row = "SELECT 265, 1, source, received_at, part, raw_size, payload FROM batches LIMIT 1"
        file.execute(f"INSERT INTO batches {row}")
        shutil.copytree(state_dir, killed)
    with (killed / "buffer.db").open("r+b") as database:
        database.write(bytes(PAGE_BYTES))  # the schema is gone
    assert salvaged(killed).end == 266
    assert 265 in rows(killed / "buffer.db")
    assert not (killed / "buffer.db-wal").exists()
    assert list(killed.glob("*.salvaged*")) == []
    (kept,) = killed.glob("buffer.db.damaged-*[0-9]")
    assert kept.with_name(f"{kept.name}-wal").exists()


@pytest.mark.parametrize("value", ["NULL", "'x'"])
@pytest.mark.parametrize(
    "column", ["count", "source", "received_at", "part", "raw_size", "payload"]
)
async def test_a_row_with_a_damaged_column_ends_no_start_and_costs_its_own_records(
    state_dir: Path, column: str, value: str
) -> None:
    """SQLite verifies neither types nor NOT NULL when it reads."""
    path = state_dir / "buffer.db"
    before = rows(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("PRAGMA writable_schema = ON")
        file.execute("UPDATE sqlite_schema SET sql = replace(sql, 'NOT NULL', '        ')")
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute(f"UPDATE batches SET {column} = {value} WHERE first_sequence = 201")
        file.execute("UPDATE facts SET value = -1 WHERE name = 'used_bytes'")  # counted anew
    try:
        with opened(state_dir) as buffer:
            buffer.set_sinks(SINKS)
            assert (await buffer.read(199))[0].first_sequence == 199
            await buffer.read(201)
            await buffer.retention.delete(received_before=2e9)
    except BufferBroken as error:
        assert "`siemrelay buffer salvage`" in str(error)  # noqa: PT017 - some are read
        salvaged(state_dir)
    with opened(state_dir) as buffer:
        buffer.set_sinks(SINKS)
        assert buffer.end == 265
        found = await buffer.read(203)
        assert found[0].first_sequence == 203
    after = rows(path)
    waiting = [first for first in before if first >= 100]
    assert {first for first in waiting if after.get(first) != before[first]} <= {201}


def test_a_file_that_is_no_database_at_all_yields_nothing_and_no_error(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    path.write_bytes(RNG.randbytes(200_000))
    found = survey(path, quiet=True)
    assert (found.records, found.end, found.cursors) == (0, 1, {})
    assert found.faults
