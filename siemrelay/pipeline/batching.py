"""Turns stored batches into delivery batches: one sink's filtered, formatted messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from siemrelay.core.event import Batch, DecodedBatch, Selection
from siemrelay.core.filters import EventFilter
from siemrelay.formats.contract import Format
from siemrelay.formats.writing.text import cut_utf8
from siemrelay.log import get_logger
from siemrelay.pipeline.decode_cache import DecodeCache
from siemrelay.pipeline.truncate import truncated
from siemrelay.sinks.contract import BatchLimits

_log = get_logger()

# Between two messages of a batch: a line feed, a comma.
_SEPARATOR_BYTES: Final = 1


class DeliveryBatch(msgspec.Struct):
    """Messages that are sent together, and the records that they settle.

    `next_sequence` is the first record after those that this batch settles, by a message, by the
    filter or by an internal error: `failed` has (sequence, error) for records on which the format
    raised. `received` has (arrival time, number of messages) for the delivery times. The first
    `sent_before` messages may have been sent in an earlier attempt.
    """

    next_sequence: int
    messages: list[bytes] = msgspec.field(default_factory=list)
    sequences: list[int] = msgspec.field(default_factory=list)
    filtered: int = 0
    unparsed: int = 0
    truncated: int = 0
    invalid_utf8: int = 0
    received: list[tuple[float, int]] = msgspec.field(default_factory=list)
    last_type: str = ""
    failed: list[tuple[int, str]] = msgspec.field(default_factory=list)
    sent_before: int = 0

    @property
    def size_bytes(self) -> int:
        """The size of the messages with their separators."""
        return sum(map(len, self.messages)) + _SEPARATOR_BYTES * len(self.messages)


class BatchMaker:
    """Makes one sink's delivery batches: filters, formats, truncates and splits to its limits."""

    def __init__(
        self, decoded: DecodeCache, events: EventFilter, form: Format, limits: BatchLimits,
        max_message_bytes: int | None, sources: frozenset[str] | None = None,
    ) -> None:  # fmt: skip
        """`sources` are those whose records the sink takes; None for all of them."""
        self._sources = sources
        self._decoded, self._events, self._format = decoded, events, form
        self._limits, self._max_message_bytes = limits, max_message_bytes

    async def turn(self, batch: Batch) -> None:
        """Wait until it is this sink's turn to take `batches` of a batch with one long record."""
        await self._decoded.turn(batch)

    def batches(self, batch: Batch, position: int) -> Iterator[DeliveryBatch]:
        """The delivery batches for a stored batch from `position` on: at least one, in order."""
        if not self._takes(batch):
            # Not decoded: this sink asks nothing of that source's decoder.
            considered = batch.next_sequence - max(position, batch.first_sequence)
            return iter([DeliveryBatch(batch.next_sequence, filtered=considered)])
        decoded = self._decoded.get(batch)
        selection = self._select(decoded, position)
        sequences = list(selection.sequences)
        failed: list[tuple[int, str]] = []
        try:
            messages = self._format.encode(selection)
        except Exception as error:  # noqa: BLE001  (logged by the next; any bug ends here)
            messages, failed = self._one_by_one(selection, error)
            lost = {sequence for sequence, _ in failed}
            sequences = [sequence for sequence in sequences if sequence not in lost]
        # Invariant: one message per event, or refusals would name the wrong records.
        assert len(messages) == len(sequences), (len(messages), len(sequences))
        messages, cut = self._truncate(messages, decoded, sequences)
        considered = batch.next_sequence - max(position, batch.first_sequence)
        whole = DeliveryBatch(
            batch.next_sequence, messages, sequences,
            filtered=considered - len(selection), unparsed=decoded.unparsed, truncated=cut,
            invalid_utf8=sum(n - batch.first_sequence in decoded.replaced for n in sequences)
            if decoded.replaced else 0,
            received=[(batch.received_at, len(messages))],
            last_type=selection.events[-1].type if messages else "", failed=failed,
        )  # fmt: skip
        return self._split(whole)

    def first_wanted(self, batch: Batch, position: int) -> int:
        """The first record from `position` on that the filter selects; the batch's end if none."""
        if not self._takes(batch):
            return batch.next_sequence
        selection = self._select(self._decoded.get(batch), position)
        return selection.sequences[0] if len(selection) else batch.next_sequence

    def _takes(self, batch: Batch) -> bool:
        return self._sources is None or batch.source in self._sources

    def _select(self, decoded: DecodedBatch, position: int) -> Selection:
        keep = self._events.select(decoded.events)
        skip = position - decoded.batch.first_sequence
        if skip > 0:
            rest = keep[skip:] if keep is not None else [True] * (decoded.batch.count - skip)
            keep = [False] * skip + rest
        return Selection(decoded, keep)

    def _one_by_one(
        self, selection: Selection, error: Exception
    ) -> tuple[list[bytes], list[tuple[int, str]]]:
        """Format each event alone: the messages, and (sequence, error) of those that failed.

        A bug in a format must neither stop the sink for ever nor lose the event.
        """
        batch = selection.decoded.batch
        messages, failed = list[bytes](), list[tuple[int, str]]()
        for sequence in selection.sequences:
            at = sequence - batch.first_sequence
            keep = [index == at for index in range(batch.count)]
            try:
                (message,) = self._format.encode(Selection(selection.decoded, keep))
            except Exception as again:  # noqa: BLE001  (logged below, with the last traceback)
                error = again
                failed.append((sequence, f"{type(again).__name__}: {again}"))
            else:
                messages.append(message)
        _log.error("internal error: format failed, records become dead letters",
                   source=batch.source, first_sequence=batch.first_sequence,
                   last_sequence=batch.next_sequence - 1,
                   failed=[sequence for sequence, _ in failed[:10]], records=len(failed),
                   exc_info=error)  # fmt: skip
        return messages, failed

    def _truncate(
        self, messages: list[bytes], decoded: DecodedBatch, sequences: list[int]
    ) -> tuple[list[bytes], int]:
        """The messages, truncated to the limit, and how many were over it."""
        limit = self._max_message_bytes
        if limit is None or not messages or max(map(len, messages)) <= limit:
            return messages, 0
        first = decoded.batch.first_sequence
        over = [at for at, message in enumerate(messages) if len(message) > limit]
        messages = list(messages)  # `raw` returns the records themselves, which all sinks share
        for at in over:
            index = sequences[at] - first
            try:
                messages[at] = truncated(self._format, decoded, index, messages[at], limit)
            except Exception as error:  # noqa: BLE001  (a bug must not stop the sink for ever)
                _log.error("internal error: message truncated as bytes",
                           source=decoded.batch.source, sequence=sequences[at],
                           exc_info=error)  # fmt: skip
                messages[at] = cut_utf8(messages[at], limit)
        return messages, len(over)

    def _split(self, batch: DeliveryBatch) -> Iterator[DeliveryBatch]:
        limits, messages = self._limits, batch.messages
        if limits.max_events is None or limits.max_bytes is None:
            yield batch
            return
        start = size = 0
        received_at = batch.received[0][0]
        for i, message in enumerate(messages):
            length = len(message) + _SEPARATOR_BYTES
            if i > start and (i - start >= limits.max_events or size + length > limits.max_bytes):
                yield DeliveryBatch(
                    batch.sequences[i], messages[start:i], batch.sequences[start:i],
                    received=[(received_at, i - start)], last_type=batch.last_type,
                )  # fmt: skip
                start, size = i, 0
            size += length
        batch.messages, batch.sequences = messages[start:], batch.sequences[start:]
        batch.received = [(received_at, len(batch.messages))]
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
        batch.messages += more.messages
        batch.sequences += more.sequences
        batch.filtered += more.filtered
        batch.unparsed += more.unparsed
        batch.truncated += more.truncated
        batch.invalid_utf8 += more.invalid_utf8
        batch.received += more.received
        batch.last_type = more.last_type or batch.last_type
        batch.failed += more.failed
        return True

    def full(self, batch: DeliveryBatch) -> bool:
        """Whether the batch is to be sent now rather than wait for more."""
        limits = self._limits
        return not limits.max_wait_s or len(batch.messages) >= (limits.max_events or 1)
