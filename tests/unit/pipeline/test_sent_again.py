"""Messages that are sent again beside the relay have the numbers that they had."""

from __future__ import annotations

from siemrelay.core.event import Batch
from siemrelay.pipeline.batching import DeliveryBatch
from siemrelay.pipeline.sent_again import ReplayedNumbers
from siemrelay.proof.stream import Numbering

# Rows of ten records, of which every second is sent; seals before the records 20 and 40. So from
# the record 10 on the numbers are 5 to 9, the seal 10, 11 to 20, the seal 21, 22 and so on.
SEALS = [(20, 10), (40, 21)]


def row(first: int) -> Batch:
    return Batch(first, 10, "log", 0.0, b"x\n" * 10)


def taken(numbers: ReplayedNumbers, first: int, position: int, count: int) -> int:
    numbering = numbers.numbering_at(row(first), position)
    numbers.sent(DeliveryBatch(first + 10, [b"x"] * count))
    return numbering.first


def test_numbers_go_on_over_seals() -> None:
    numbers = ReplayedNumbers("abcdefgh22", 10, 5, SEALS, b"?")
    found = [taken(numbers, first, 10, 5) for first in (10, 20, 30, 40)]
    assert found == [5, 11, 16, 22]


def test_after_a_broken_connection_they_go_on_where_sending_does() -> None:
    numbers = ReplayedNumbers("abcdefgh22", 10, 5, SEALS, b"?")
    for first in (10, 20, 30, 40):
        taken(numbers, first, 10, 5)
    assert taken(numbers, 20, 20, 5) == 11
    assert taken(numbers, 30, 30, 5) == 16
    # Records that the filter leaves out were passed without a receiver: from 40 to 43.
    assert taken(numbers, 40, 43, 3) == 22


def test_a_number_stands_where_its_placeholder_stood() -> None:
    numbering = Numbering("abcdefgh22", 98, b"{?}")
    assert numbering.numbered([b"a {?} b", b"{?}", b"c"]) == [
        b"a abcdefgh22:98 b", b"abcdefgh22:99", b"c",
    ]  # fmt: skip
