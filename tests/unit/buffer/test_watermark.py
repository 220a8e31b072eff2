"""The high watermark: what a restart reads is what the last commit noted."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from siemrelay.buffer.rows import StoredCursor
from siemrelay.buffer.watermark import HighWatermark, Watermark


@pytest.mark.parametrize("seed", range(20))
def test_a_restart_reads_the_last_end_and_every_cursor_as_it_moved_last(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    names = ["siem", 'a "quoted" name', "größer"]
    watermark = HighWatermark(tmp_path)
    cursors = {name: StoredCursor(1, 1) for name in rng.sample(names, rng.randint(0, 3))}
    watermark.start_with(1, cursors)
    end = 1
    for _ in range(30):
        end += rng.randint(0, 10 ** rng.randint(0, 9))
        moved = {name: StoredCursor(end, 1, end - 1) for name in names if rng.random() < 0.2}
        cursors |= moved
        watermark.note(end, moved)
        if rng.random() < 0.1:  # as after a reload, which forgets the sinks that are gone
            cursors = {name: cursors[name] for name in cursors if rng.random() < 0.5}
            watermark.start_with(end, cursors)
        assert HighWatermark(tmp_path).read() == Watermark(end, cursors)
    watermark.close()
