"""Which acknowledged records are gone, and where a start goes on: by table, and on real files."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import LogCapture
from trio.testing import MockClock

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.buffer.recovery import FoundState, recover
from siemrelay.buffer.rows import StoredCursor
from siemrelay.buffer.sink_cursor import Outcome, SinkPolicy
from siemrelay.buffer.watermark import HighWatermark, Watermark
from siemrelay.core.event import Batch
from siemrelay.telemetry.stats import BufferStats
from tests.support.buffers import advance

GONE = "acknowledged records are gone from the disk"


def at(next_sequence: int, lost: int = 0) -> StoredCursor:
    return StoredCursor(next_sequence, 1, next_sequence - 1 - lost, lost=lost)


@pytest.mark.parametrize(
    ("found", "watermark", "next_sequence", "cursors", "gone"),
    [
        pytest.param(FoundState(1, {}, None, None), None, 1, {}, [], id="a new buffer"),
        pytest.param(
            FoundState(50, {"a": at(20), "b": at(50)}, 10, 50), Watermark(50, {}),
            50, {"a": at(20), "b": at(50)}, [], id="a healthy one",
        ),
        pytest.param(
            FoundState(50, {"a": at(50)}, None, None), Watermark(40, {"a": at(40)}),
            50, {"a": at(50)}, [], id="a watermark that a power cut left behind",
        ),
        pytest.param(
            FoundState(1, {}, None, None), Watermark(50, {"a": at(20), "b": at(50)}),
            50, {"a": at(50, lost=30), "b": at(50)}, [(1, 49, {"a": 30})], id="an emptied file",
        ),
        pytest.param(
            FoundState(30, {"a": at(10), "b": at(30)}, 5, 30), Watermark(50, {"a": at(12)}),
            50, {"a": at(12), "b": at(50, lost=20)}, [(30, 49, {"a": 20, "b": 20})],
            id="a log that was cut",
        ),
        pytest.param(
            FoundState(30, {"a": at(30)}, 5, 30), Watermark(50, {"a": at(50)}),
            50, {"a": at(50)}, [(30, 49, {})], id="a log that was cut, all of it delivered",
        ),
        pytest.param(
            FoundState(30, {"a": at(80), "b": at(10)}, 5, 30), None,
            80, {"a": at(80), "b": at(10)}, [(30, 79, {"b": 50})],
            id="a cursor beyond the end without a watermark",
        ),
        pytest.param(
            FoundState(30, {"a": at(80)}, 5, 30), Watermark(30, {"a": at(25)}),
            30, {"a": at(25)}, [], id="a cursor that a watermark proves damaged",
        ),
        pytest.param(
            FoundState(30, {"a": None, "b": at(-4)}, 5, 30), None,
            30, {"a": StoredCursor(5, 5), "b": StoredCursor(5, 5)}, [], id="damaged cursors",
        ),
        pytest.param(
            FoundState(None, {"a": at(10)}, 5, 30), None, 30, {"a": at(10)}, [], id="a fact missing"
        ),
        pytest.param(
            FoundState(50, {"a": at(10), "b": at(40)}, 30, 50), None,
            50, {"a": at(30, lost=20), "b": at(40)}, [(10, 29, {"a": 20})],
            id="rows deleted before a sink had them",
        ),
        pytest.param(
            FoundState(50, {"a": at(10), "b": at(45)}, 5, 40), None,
            50, {"a": at(10), "b": at(50, lost=5)}, [(40, 49, {"a": 10, "b": 5})],
            id="the newest rows deleted",
        ),
        pytest.param(
            FoundState(50, {"a": at(10)}, None, None), None,
            50, {"a": at(50, lost=40)}, [(10, 49, {"a": 40})], id="all rows deleted",
        ),
    ],
)  # fmt: skip
def test_a_start_goes_on_where_nothing_is_skipped_and_names_what_is_gone(
    found: FoundState, watermark: Watermark | None, next_sequence: int,
    cursors: dict[str, StoredCursor], gone: list[Any],
) -> None:  # fmt: skip
    recovered = recover(found, watermark)
    assert recovered.next_sequence == next_sequence
    assert recovered.cursors == cursors
    assert [
        (finding.from_sequence, finding.to_sequence, finding.undelivered)
        for finding in recovered.findings
        if finding.message == GONE
    ] == gone
    assert recovered.changed == (next_sequence != found.next_sequence or cursors != found.cursors)
    # It is said once: what is stored then is a healthy buffer.
    again = FoundState(recovered.next_sequence, recovered.cursors, found.oldest, found.rows_end)
    repeated = recover(again, Watermark(next_sequence, recovered.cursors))
    assert repeated.cursors == recovered.cursors
    assert not repeated.changed


@pytest.mark.parametrize("damage", [b"", b"x", b"0000", b"12345678{", None])
def test_a_watermark_that_cannot_be_trusted_is_none(tmp_path: Path, damage: bytes | None) -> None:
    watermark = HighWatermark(tmp_path)
    assert watermark.read() is None
    watermark.note(1234567, {"a": at(3), "b": at(5)})
    watermark.note(7, {"a": at(4)})
    assert watermark.read() == Watermark(7, {"a": at(4), "b": at(5)})
    watermark.start_with(9, {"b": at(5)})
    watermark.close()
    assert watermark.read() == Watermark(9, {"b": at(5)})
    file = tmp_path / "high-watermark"
    file.write_bytes(file.read_bytes().replace(b"9", b"8", 1) if damage is None else damage)
    assert watermark.read() is None


# -- on real files --------------------------------------------------------


def opened(state_dir: Path) -> DiskBuffer:
    buffer = DiskBuffer(state_dir, max_size_bytes=1 << 30, keep_s=1e6, stats=BufferStats())
    buffer.set_sinks({"a": SinkPolicy(), "b": SinkPolicy()})
    return buffer


async def killed(tmp_path: Path, clock: MockClock) -> Path:
    """What kill -9 leaves: 30 records stored, of which `a` has 10 and `b` all."""
    with opened(tmp_path / "state") as buffer:
        for first in range(1, 31, 3):
            payload = b"".join(b"%d\n" % n for n in range(first, first + 3))
            await buffer.append([Batch(first, 3, "app", 5.0, payload)], {})
            advance(buffer, "a", min(11, buffer.end))
            advance(buffer, "b", buffer.end)
        clock.jump(1)  # cursors go with the first records after a moment
        await buffer.append([], {("app", "file"): {"offset": 30}})
        shutil.copytree(tmp_path / "state", tmp_path / "killed")
    return tmp_path / "killed"


def empty(state_dir: Path) -> None:
    (state_dir / "buffer.db").write_bytes(b"")
    (state_dir / "buffer.db-wal").unlink()


def remove_log(state_dir: Path) -> None:
    (state_dir / "buffer.db-wal").unlink()


def cut_log(state_dir: Path) -> None:
    log = state_dir / "buffer.db-wal"
    with log.open("r+b") as file:
        file.truncate(log.stat().st_size // 2)


@pytest.mark.parametrize("harm", [empty, remove_log, cut_log])
async def test_records_that_are_gone_are_logged_counted_and_their_numbers_not_used_again(
    tmp_path: Path, mock_clock: MockClock, log: LogCapture, harm: Callable[[Path], None]
) -> None:
    state_dir = await killed(tmp_path, mock_clock)
    harm(state_dir)
    with opened(state_dir) as buffer:
        assert buffer.end == 31
        (line,) = (entry for entry in log.entries if entry["event"] == GONE)
        assert line["to_sequence"] == 30
        gone = 31 - line["from_sequence"]
        assert line["undelivered"] == {"a": min(gone, 20)}
        # Whatever is left is delivered, then the gap is passed.
        while (cursor := buffer.cursor("a")).next_sequence < buffer.end:
            for batch in await buffer.read(cursor.next_sequence):
                advance_by_records(buffer, batch)
        counts = buffer.cursor("a").counts
        assert (counts.lost, counts.settled()) == (min(gone, 20), 30)
        assert buffer.cursor("b").counts.settled() == 30
        assert buffer.cursor("b").counts.lost == 0
    log.entries.clear()
    with opened(state_dir) as buffer:
        assert buffer.end == 31
    assert log.entries == []


def advance_by_records(buffer: DiskBuffer, batch: Batch) -> None:
    first = buffer.cursor("a").next_sequence
    for sequence in range(max(first, batch.first_sequence), batch.next_sequence):
        advance(buffer, "a", sequence + 1)
    if not batch.count:
        buffer.advance("a", batch.next_sequence, Outcome())


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM facts",
        "DELETE FROM facts WHERE name = 'next_sequence'",
        "UPDATE facts SET value = 'x'",
        "UPDATE facts SET value = -7",
        "UPDATE cursors SET next_sequence = 'x', delivered = 'y'",
        "UPDATE cursors SET next_sequence = 4000000",
        "UPDATE positions SET value = '{\"off'",
        "UPDATE positions SET value = x'ff00'",
    ],
)
async def test_a_start_with_damaged_values_goes_on_and_says_so(
    tmp_path: Path, mock_clock: MockClock, log: LogCapture, statement: str
) -> None:
    state_dir = await killed(tmp_path, mock_clock)
    with closing(sqlite3.connect(state_dir / "buffer.db", isolation_level=None)) as file:
        (size,) = file.execute("SELECT value FROM facts WHERE name = 'used_bytes'").fetchone()
        file.execute(statement)
    with opened(state_dir) as buffer:
        damaged_position = "positions" in statement
        assert buffer.positions("app") == ({} if damaged_position else {"file": {"offset": 30}})
        assert [entry["log_level"] for entry in log.entries if "damaged" in entry["event"]]
        assert (buffer.end, buffer.stats.size_bytes) == (31, size)
        # The watermark has the cursors of the last commit.
        assert buffer.cursor("a").next_sequence == 11
        assert buffer.cursor("b").next_sequence >= 28
        await buffer.append([Batch(31, 1, "app", 5.0, b"31\n")], {})
