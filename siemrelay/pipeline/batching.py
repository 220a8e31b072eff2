"""Turns one sink's messages into delivery batches: what is sent and settled together."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final, TypeVar

import msgspec

from siemrelay.core.event import Batch
from siemrelay.core.lines import RecordLines, size_of
from siemrelay.pipeline.formatting.messages import SinkMessages
from siemrelay.proof.stream import Numbering
from siemrelay.sinks.contract import BatchLimits

# Between two messages of a batch: a line feed, a comma.
_SEPARATOR_BYTES: Final = 1


class DeliveryBatch(msgspec.Struct):
    """Messages that are sent together, and the records that they settle.

    `next_sequence` is the first record after those that this batch settles, by a message, by the
    filter or by an internal error: `failed` has (sequence, error) for records on which the format
    raised. `received` has (arrival time, number of messages) for the delivery times. The first
    `sent_before` messages may have been sent in an earlier attempt. `first_number` is the number of
    the first message in a sealed stream; `seal`: the one message is a seal, and no record's.
    `sampled` counts what a sample left out, by event type.
    """

    next_sequence: int
    messages: Sequence[bytes] = ()
    sequences: Sequence[int] = ()
    filtered: int = 0
    unparsed: int = 0
    truncated: int = 0
    redacted: int = 0
    sampled: dict[str, int] = msgspec.field(default_factory=dict)
    invalid_utf8: int = 0
    received: list[tuple[float, int]] = msgspec.field(default_factory=list)
    last_type: str = ""
    failed: list[tuple[int, str]] = msgspec.field(default_factory=list)
    sent_before: int = 0
    first_number: int = 0
    seal: bool = False

    @property
    def size_bytes(self) -> int:
        """The size of the messages with their separators."""
        return size_of(self.messages) + _SEPARATOR_BYTES * len(self.messages)


# Lines are joined as one text, which is copied each time, while what is added is at least one part
# in so many: thousands of lone records would cost the square of their number.
_LINES_JOINED: Final = 8

_Each = TypeVar("_Each")


def _appended(some: Sequence[_Each], more: Sequence[_Each]) -> list[_Each]:
    # Where batches are joined `_split` has copied their lists; other sequences are shared.
    joined: list[_Each] = some if isinstance(some, list) else [*some]
    joined.extend(more)
    return joined


def _joined(some: Sequence[bytes], more: Sequence[bytes]) -> Sequence[bytes]:
    if type(some) is type(more) is RecordLines and (
        len(some.payload) <= _LINES_JOINED * len(more.payload)
    ):
        return some + more
    return _appended(some, more)


class BatchMaker:
    """Makes one sink's delivery batches: splits its messages, or joins them, to its limits."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits

    def batches(
        self, batch: Batch, found: SinkMessages, position: int, numbering: Numbering | None = None
    ) -> Iterable[DeliveryBatch]:
        """The delivery batches for a stored batch from `position` on: at least one, in order.

        Args: found: the sink's messages of the whole batch. numbering: the numbers that they get
        in their sealed stream.
        """
        count = batch.count
        if position > batch.first_sequence:
            found, count = found.since(position), batch.next_sequence - position
        messages = found.messages
        if numbering is not None:
            messages = numbering.numbered(messages)
        whole = DeliveryBatch(
            batch.next_sequence, messages, found.sequences,
            filtered=count - len(messages) - len(found.failed), unparsed=found.unparsed,
            truncated=len(found.truncated), redacted=len(found.redacted),
            sampled=found.left_out(position, batch.next_sequence) if found.sampled else {},
            invalid_utf8=len(found.replaced), received=[(batch.received_at, len(messages))],
            last_type=found.last_type if messages else "", failed=[*found.failed],
            first_number=0 if numbering is None else numbering.first,
        )  # fmt: skip
        max_events, max_bytes = self._limits.max_events, self._limits.max_bytes
        if max_events is None or max_bytes is None:
            return (whole,)
        return self._split(whole, max_events, max_bytes)

    def _split(
        self, batch: DeliveryBatch, max_events: int, max_bytes: int
    ) -> Iterator[DeliveryBatch]:
        messages = batch.messages
        if len(messages) <= max_events and batch.size_bytes <= max_bytes:
            batch.messages, batch.sequences = messages[:], batch.sequences[:]
            yield batch
            return
        ends = [*accumulate(map(_SEPARATOR_BYTES.__add__, map(len, messages)))]
        start = start_bytes = 0
        received_at = batch.received[0][0]
        while True:
            most = min(start + max_events, len(ends))
            end = max(bisect_right(ends, start_bytes + max_bytes, start, most), start + 1)
            if end >= len(ends):
                break
            yield DeliveryBatch(
                batch.sequences[end], messages[start:end], batch.sequences[start:end],
                received=[(received_at, end - start)], last_type=batch.last_type,
                first_number=batch.first_number + start,
            )  # fmt: skip
            start, start_bytes = end, ends[end - 1]
        batch.messages, batch.sequences = messages[start:], batch.sequences[start:]
        batch.received = [(received_at, len(batch.messages))]
        batch.first_number += start
        yield batch

    def join(self, batch: DeliveryBatch, more: DeliveryBatch) -> bool:
        """Append `more` to `batch` if the limits allow; False leaves both unchanged."""
        limits = self._limits
        if not limits.max_wait_s or limits.max_events is None or limits.max_bytes is None:
            return False
        if len(batch.messages) + len(more.messages) > limits.max_events:
            return False
        if batch.size_bytes + more.size_bytes > limits.max_bytes:
            return False
        batch.next_sequence = more.next_sequence
        if not batch.messages:
            batch.first_number = more.first_number
        batch.messages = _joined(batch.messages, more.messages)
        batch.sequences = _appended(batch.sequences, more.sequences)
        batch.filtered += more.filtered
        batch.unparsed += more.unparsed
        batch.truncated += more.truncated
        batch.redacted += more.redacted
        for name, count in more.sampled.items():
            batch.sampled[name] = batch.sampled.get(name, 0) + count
        batch.invalid_utf8 += more.invalid_utf8
        batch.received += more.received
        batch.last_type = more.last_type or batch.last_type
        batch.failed += more.failed
        return True

    def full(self, batch: DeliveryBatch) -> bool:
        """Whether the batch holds so many messages that none can be joined to it."""
        return len(batch.messages) >= (self._limits.max_events or 1)
