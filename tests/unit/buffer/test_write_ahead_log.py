"""A disk damages the write-ahead log of a killed relay: no acknowledged record is overwritten."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import structlog
import trio
from structlog.testing import LogCapture
from trio.testing import MockClock

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.buffer.salvage import put_in_place, salvage, survey
from siemrelay.buffer.sink_cursor import SinkPolicy
from siemrelay.buffer.sqlite.schema import PAGE_BYTES
from siemrelay.buffer.sqlite.write_ahead_log import WriteAheadLog
from siemrelay.buffer.state_dir import find_buffer
from siemrelay.core.errors import BufferBroken
from siemrelay.core.event import Batch
from siemrelay.telemetry.stats import BufferStats
from tests.support.buffers import advance

CORRECTED = "the buffer's write-ahead log was damaged, and is corrected: nothing is lost"
HEADER, FRAME = 32, 24 + PAGE_BYTES
COMMITS = 40


@pytest.fixture
def log() -> Iterator[LogCapture]:
    before, capture = structlog.get_config(), LogCapture()
    structlog.configure(processors=[capture])
    yield capture
    structlog.configure(**before)


def opened(state_dir: Path) -> DiskBuffer:
    return DiskBuffer(state_dir, max_size_bytes=1 << 30, keep_s=1e6, stats=BufferStats())


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What kill -9 leaves: 40 commits of one or two records, of which a sink has the first."""
    path = tmp_path_factory.mktemp("killed") / "state"
    clock = MockClock()
    trio.run(fill, path, clock, clock=clock)
    return path


async def fill(path: Path, clock: MockClock) -> None:
    chance = random.Random(5)
    with opened(path.with_name("running")) as buffer:
        buffer.set_sinks({"a": SinkPolicy()})
        for n in range(COMMITS):
            size = 40_000 if n % 7 == 3 else 300
            lines = [chance.randbytes(size).hex().encode() + b"\n" for _ in range(1 + n % 2)]
            batch = Batch(buffer.end, len(lines), "app", 5.0, b"".join(lines))
            await buffer.append([batch], {("app", "file"): {"offset": n}})
            if n % 10 == 9:
                advance(buffer, "a", n // 10 + 1)
                clock.jump(2)
                await buffer.flusher.flush()
        shutil.copytree(path.with_name("running"), path)


def rows(state_dir: Path) -> dict[int, bytes]:
    with closing(sqlite3.connect(state_dir / "buffer.db")) as file:
        return dict(file.execute("SELECT first_sequence, payload FROM batches").fetchall())


def wal(state_dir: Path) -> Path:
    return state_dir / "buffer.db-wal"


def copied(killed: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(killed, to)
    return to


def damage(state_dir: Path, at: int, size: int = 1, mask: int = 0x5A) -> None:
    whole = bytearray(wal(state_dir).read_bytes())
    whole[at : at + size] = bytes(byte ^ mask for byte in whole[at : at + size])
    wal(state_dir).write_bytes(whole)


SHORT, LONG = 1, pytest.param(20, marks=pytest.mark.slow)


@pytest.mark.parametrize("times", [SHORT, LONG])
def test_one_flipped_byte_anywhere_loses_nothing(
    killed: Path, tmp_path: Path, log: LogCapture, seed: int, times: int
) -> None:
    """Most are corrected at the start, the others by salvage."""
    chance, whole = random.Random(seed), rows(copied(killed, tmp_path / "whole"))
    size, corrected, salvaged = wal(killed).stat().st_size, 0, 0
    frame = HEADER + FRAME * chance.randrange(1, size // FRAME)
    parts = range(HEADER), range(frame, frame + 24), range(size - FRAME, size), range(size)
    for at in [chance.choice(part) for part in parts * 3 * times]:
        state_dir, mask = copied(killed, tmp_path / "state"), chance.randrange(1, 256)
        damage(state_dir, at, mask=mask)
        log.entries.clear()
        try:
            buffer = opened(state_dir)
        except BufferBroken:
            salvaged += 1
            salvage(state_dir / "buffer.db", state_dir / "new")
            put_in_place(state_dir / "buffer.db", state_dir / "new")
            buffer = opened(state_dir)
        with buffer:
            found = (buffer.end, rows(state_dir), buffer.positions("app"))
        assert found[:2] == (61, whole), (at, mask)
        assert found[2] == {"file": {"offset": COMMITS - 1}}, (at, mask)
        assert {entry["event"] for entry in log.entries} <= {CORRECTED}, (at, mask)
        corrected += bool(log.entries)
    print(f"{corrected} corrected, {salvaged} salvaged")
    assert corrected


@pytest.mark.parametrize("times", [SHORT, LONG])
@pytest.mark.parametrize("size", [2, 512, 4096])
def test_larger_damage_ends_the_start_and_all_but_what_was_there_is_salvaged(
    killed: Path, tmp_path: Path, log: LogCapture, seed: int, size: int, times: int
) -> None:
    chance, whole = random.Random(seed), rows(copied(killed, tmp_path / "whole"))
    frames, refused = (wal(killed).stat().st_size - HEADER) // FRAME, 0
    for frame in [chance.randrange(frames) for _ in range(4 * times)]:
        at = HEADER + frame * FRAME + 24 + chance.randrange(PAGE_BYTES // size) * size
        state_dir = copied(killed, tmp_path / "state")
        damage(state_dir, at, size)
        before = {path.name: path.read_bytes() for path in state_dir.glob("buffer.db*")}
        refusal = ""
        try:
            opened(state_dir).__exit__()
        except BufferBroken as error:
            refusal = str(error)
        if refusal:
            refused += 1
            assert "`siemrelay buffer salvage`" in refusal
            with pytest.raises(BufferBroken, match="acknowledged records behind it"):
                find_buffer(state_dir)  # for commands: they open it as the relay does
            assert not survey(state_dir / "buffer.db", quiet=True).healthy
            for name, content in before.items():
                assert name.endswith("-shm") or (state_dir / name).read_bytes() == content
            salvage(state_dir / "buffer.db", state_dir / "new")
            put_in_place(state_dir / "buffer.db", state_dir / "new")
            with opened(state_dir) as buffer:
                assert buffer.end == 61
        after = rows(state_dir)
        hit = wal(killed).read_bytes()[HEADER + frame * FRAME :][:FRAME]
        for first, payload in whole.items():
            if after.get(first) != payload:
                pieces = (payload[n : n + 8] for n in range(0, len(payload) - 8, 4))
                assert any(piece in hit for piece in pieces), (at, first)
    print(f"{refused} starts refused")
    assert refused


def test_a_torn_tail_starts_without_a_word(killed: Path, tmp_path: Path, log: LogCapture) -> None:
    """After a power cut sectors of what was not fsynced may lack: of saved cursors, and of one
    commit of records, the last, which is whole here. Nobody had acknowledged it.
    """
    state_dir = copied(killed, tmp_path / "state")
    (state_dir / "high-watermark").unlink()  # as old as the cut allows
    with closing(sqlite3.connect(state_dir / "buffer.db", isolation_level=None)) as file:
        file.execute("PRAGMA synchronous = NORMAL")
        torn_at = wal(state_dir).stat().st_size
        file.execute("UPDATE cursors SET delivered = delivered + 1")
        file.execute("UPDATE cursors SET delivered = delivered - 1")
        row = "SELECT 61, 1, source, received_at, part, raw_size, payload FROM batches LIMIT 1"
        file.executescript(
            f"BEGIN; INSERT INTO batches {row};"
            "UPDATE facts SET value = 62 WHERE name = 'next_sequence'; COMMIT;"
        )
        torn = copied(state_dir, tmp_path / "torn")
    for at, size in ((torn_at, 8), (torn_at + 512, 512), (torn_at + 24, PAGE_BYTES)):
        image = copied(torn, tmp_path / "image")
        damage(image, at, size)
        with opened(image) as buffer:
            assert buffer.end == 61
    assert log.entries == []


def test_the_checksums_of_a_healthy_log_are_those_that_sqlite_wrote(killed: Path) -> None:
    with WriteAheadLog(killed / "buffer.db") as found:
        frames = list(found.frames())
    assert len(frames) == (wal(killed).stat().st_size - HEADER) // FRAME
    assert all(frame.intact for frame in frames)
