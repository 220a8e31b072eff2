"""What a sink reads ahead of a backlog costs the same for each batch, however many there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from siemrelay.core.event import Batch
from siemrelay.pipeline.read_ahead import ReadAhead


class Stored:
    """A buffer that gives a thousand records at a time, each a batch of its own."""

    def __init__(self, records: int) -> None:
        self.end = records + 1

    async def read(self, sequence: int) -> list[Batch]:
        numbers = range(sequence, min(sequence + 1000, self.end))
        return [Batch(number, 1, "app", 1.0, b"%d\n" % number) for number in numbers]


class Reader:
    """Counts the batches that are looked at beside those that are read."""

    def __init__(self, *, reads_ahead: bool) -> None:
        self.reads_ahead, self.looked_at = reads_ahead, 0

    def share_of(self, size_bytes: int) -> int:
        return size_bytes

    def prepare(self, batches: Sequence[Batch], *, behind: bool) -> None:
        self.looked_at += len(batches)

    async def messages(self, batch: Batch, following: object) -> Any:
        return batch.payload


@pytest.mark.parametrize("reads_ahead", [False, True])
async def test_a_backlog_of_lone_records_is_read_in_order_without_looking_at_all_each_time(
    reads_ahead: bool,
) -> None:
    records, reader = 5000, Reader(reads_ahead=reads_ahead)
    ahead = ReadAhead(cast("Any", Stored(records)), cast("Any", reader), 1)
    found: list[Any] = [(await ahead.next())[1] for _ in range(records)]
    assert found == [b"%d\n" % number for number in range(1, records + 1)]
    assert ahead.is_at_end
    assert reader.looked_at <= 100 * records
