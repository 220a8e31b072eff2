"""A group of records: what it waits for, and that what it waits for comes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from siemrelay.pipeline.intake.commit_group import FULL_BYTES, CommitGroup
from siemrelay.sources.contract import Records
from siemrelay.telemetry.stats import SourceStats

LINES = Records(b"x" * (512 * 1024 - 1) + b"\n", 1)
WINDOW_S = 0.02
FILLING = -(-FULL_BYTES // len(LINES.payload))  # as many lines as make a group full


async def wait(group: CommitGroup) -> None:
    await trio.sleep_forever()


async def fill(group: CommitGroup) -> None:
    while group.size_bytes < FULL_BYTES:
        await trio.sleep(WINDOW_S / 10)
        group.add(SourceStats("a"), LINES, 0.0)


@pytest.mark.parametrize(
    ("begins", "waits_s"),
    [
        pytest.param(wait, WINDOW_S, id="nothing more comes"),
        pytest.param(fill, WINDOW_S / 10 * FILLING, id="it gets full"),
        pytest.param(CommitGroup.until_stored, 0.0, id="a sender waits for it"),
    ],
)
async def test_a_group_waits_until_it_is_full_or_somebody_waits_for_it_or_its_time_is_over(
    begins: Callable[[CommitGroup], Awaitable[object]], waits_s: float,
    autojump_clock: trio.testing.MockClock,
) -> None:  # fmt: skip
    group, started = CommitGroup(), trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(begins, group)
        await group.until_full(WINDOW_S)
        assert trio.current_time() - started == pytest.approx(waits_s)
        nursery.cancel_scope.cancel()


def test_large_entries_are_rows_of_their_own_and_small_ones_share_one() -> None:
    group, source = CommitGroup(), SourceStats("a")
    for records in (LINES, Records(b"1\n", 1), Records(b"2\n3\n", 2), LINES):
        group.add(source, records, 1.0)
    group.number(7)
    rows = group.batches
    assert [(row.first_sequence, row.count) for row in rows] == [(7, 1), (8, 3), (11, 1)]
    # What was compressed ahead is found by this.
    assert rows[0].payload is rows[2].payload is LINES.payload
