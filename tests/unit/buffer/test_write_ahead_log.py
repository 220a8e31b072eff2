"""A disk damages the write-ahead log of a killed relay: no acknowledged record is overwritten."""

from __future__ import annotations

import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import LogCapture

from siemrelay.buffer.salvage import put_in_place, salvage, survey
from siemrelay.buffer.sqlite.schema import PAGE_BYTES
from siemrelay.buffer.sqlite.write_ahead_log import WriteAheadLog
from siemrelay.buffer.state_dir import find_buffer, lock_state_dir
from siemrelay.core.errors import BufferBroken
from tests.support.buffers import COMMITS, RECORDS, copied, killed_buffer, opened

CORRECTED = "the buffer's write-ahead log was damaged, and is corrected: nothing is lost"
HEADER, FRAME = 32, 24 + PAGE_BYTES


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return killed_buffer(tmp_path_factory.mktemp("killed") / "state")


def rows(state_dir: Path) -> dict[int, bytes]:
    with closing(sqlite3.connect(state_dir / "buffer.db")) as file:
        return dict(file.execute("SELECT first_sequence, payload FROM batches").fetchall())


def wal(state_dir: Path) -> Path:
    return state_dir / "buffer.db-wal"


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
        assert found[:2] == (RECORDS + 1, whole), (at, mask)
        # Salvage cannot tell whether the newest position itself is damaged. It takes the one
        # before, so that records may be read twice and none is skipped.
        offsets = {COMMITS - 1} if log.entries else {COMMITS - 2, COMMITS - 1}
        assert found[2]["file"]["offset"] in offsets, (at, mask)
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
    for frame in [chance.randrange(frames) for _ in range(2 * times)]:
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
                assert buffer.end == RECORDS + 1
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
        columns = "1, source, received_at, part, raw_size, payload"
        file.executescript(
            f"BEGIN; INSERT INTO batches SELECT {RECORDS + 1}, {columns} FROM batches LIMIT 1;"
            "UPDATE facts SET value = value + 1 WHERE name = 'next_sequence'; COMMIT;"
        )
        whole = copied(state_dir, tmp_path / "whole")
    for at, size in ((torn_at, 8), (torn_at + 512, 512), (torn_at + 24, PAGE_BYTES)):
        torn = copied(whole, tmp_path / "torn")
        damage(torn, at, size)
        with opened(torn) as buffer:
            assert buffer.end == RECORDS + 1
    assert log.entries == []
    damage(whole, HEADER + 24, PAGE_BYTES)  # what is behind it was fsynced, all but the last commit
    with pytest.raises(BufferBroken, match=f"behind it: 1 to {RECORDS + 1}"):
        opened(whole)


def test_a_log_is_not_corrected_under_a_relay_that_has_just_started(
    killed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state_dir, frames = copied(killed, tmp_path / "state"), wal(killed).stat().st_size // FRAME
    damage(state_dir, HEADER + frames // 2 * FRAME + 17)  # a stored checksum
    damaged = wal(state_dir).read_bytes()
    with monkeypatch.context() as patched:  # it starts after a command has looked for one
        patched.setattr("siemrelay.buffer.state_dir.running_process", lambda _: None)
        relay = lock_state_dir(state_dir)
        find_buffer(state_dir)
    assert wal(state_dir).read_bytes() == damaged
    os.close(relay)
    find_buffer(state_dir)
    assert wal(state_dir).read_bytes() == wal(killed).read_bytes()


def test_the_checksums_of_a_healthy_log_are_those_that_sqlite_wrote(killed: Path) -> None:
    with WriteAheadLog(killed / "buffer.db") as found:
        frames = list(found.frames())
    assert len(frames) == (wal(killed).stat().st_size - HEADER) // FRAME
    assert all(frame.intact for frame in frames)
