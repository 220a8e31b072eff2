"""One sink's messages become delivery batches, whatever sequence they come in."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import accumulate

import pytest

from siemrelay.core.event import Batch
from siemrelay.core.lines import RecordLines
from siemrelay.pipeline.batching import BatchMaker, DeliveryBatch
from siemrelay.pipeline.formatting.messages import SinkMessages
from siemrelay.sinks.contract import BatchLimits


def as_lines(messages: list[bytes]) -> Sequence[bytes]:
    """As they come from a worker."""
    return RecordLines(b"".join(message + b"\n" for message in messages), len(messages))


def made(stored: list[Sequence[bytes]], limits: BatchLimits) -> list[DeliveryBatch]:
    """The delivery batches, joined as a delivery joins them."""
    maker, found = BatchMaker(limits), list[DeliveryBatch]()
    starts = accumulate((len(messages) for messages in stored), initial=1)
    for first, messages in zip(starts, stored, strict=False):
        batch = Batch(first, len(messages), "app", 1.0, b"x\n" * len(messages))
        sequences = range(first, first + len(messages))
        for one in maker.batches(batch, SinkMessages(messages, sequences), first):
            if not (found and maker.join(found[-1], one)):
                found.append(one)
    return found


@pytest.mark.parametrize("seed", range(20))
def test_messages_of_workers_and_of_the_relay_fill_the_same_batches(seed: int) -> None:
    chance = random.Random(seed)
    stored = [
        [bytes(chance.choices(b"abc ", k=chance.randrange(30))) for _ in range(chance.randrange(9))]
        for _ in range(30)
    ]
    stored = [messages for messages in stored if messages]
    limits = BatchLimits(max_events=12, max_bytes=150, max_wait_s=1.0)
    mixed = [as_lines(each) if chance.random() < 0.5 else [*each] for each in stored]
    expected = made([[*each] for each in stored], limits)
    for other in (mixed, [as_lines(each) for each in stored]):
        assert [facts(batch) for batch in made(other, limits)] == [facts(b) for b in expected]
    assert [m for batch in expected for m in batch.messages] == [m for run in stored for m in run]
    # What is shared with other sinks is as it was.
    assert list(map(list, mixed)) == stored


def facts(batch: DeliveryBatch) -> object:
    """A batch as plain values."""
    return (
        batch.next_sequence, list(batch.messages), list(batch.sequences), batch.received,
        batch.size_bytes,
    )  # fmt: skip
