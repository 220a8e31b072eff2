"""From batches to runs: what one sink takes of the buffer, in the portions it sends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
import structlog

from siemrelay.core.event import Batch, DecodedBatch, Selection
from siemrelay.core.filters import EventFilter
from siemrelay.formats.contract import Format
from siemrelay.formats.writing.text import cut_utf8
from siemrelay.pipeline.decode_cache import DecodeCache
from siemrelay.pipeline.truncate import shortened
from siemrelay.sinks.contract import BatchLimits

_log = structlog.get_logger()

# What stands between two messages of a run: a line feed, a comma.
_SEPARATOR_BYTES: Final = 1


class DeliveryBatch(msgspec.Struct):
    """Messages that are sent together, and the records that they settle.

    `next_sequence` is the first record after those that this run settles, be it by a message, by
    the filter or by a failure of our own: `failed` has (sequence, what happened) for records that
    the format raised on. `received` has (when, how many messages) for the delivery times. The first
    `sent_before` messages may have been sent in an earlier attempt.
    """

    next_sequence: int
    messages: list[bytes] = msgspec.field(default_factory=list)
    sequences: list[int] = msgspec.field(default_factory=list)
    filtered: int = 0
    unparsed: int = 0
    cut: int = 0
    replaced: int = 0
    received: list[tuple[float, int]] = msgspec.field(default_factory=list)
    last_type: str = ""
    failed: list[tuple[int, str]] = msgspec.field(default_factory=list)
    sent_before: int = 0

    @property
    def size_bytes(self) -> int:
        """The messages with what separates them."""
        return sum(map(len, self.messages)) + _SEPARATOR_BYTES * len(self.messages)


class BatchMaker:
    """One sink's view of batches: filtered, formatted, cut to size, portioned."""

    def __init__(
        self, decoded: DecodeCache, events: EventFilter, form: Format, limits: BatchLimits,
        max_message_bytes: int | None,
    ) -> None:  # fmt: skip
        self._decoded, self._events, self._format = decoded, events, form
        self._limits, self._max_message_bytes = limits, max_message_bytes

    def batches(self, batch: Batch, position: int) -> Iterator[DeliveryBatch]:
        """The runs for the records of a batch from `position` on; at least one, in order."""
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
        messages, cut = self._cut(messages, decoded, sequences)
        considered = batch.next_sequence - max(position, batch.first_sequence)
        whole = DeliveryBatch(
            batch.next_sequence, messages, sequences,
            filtered=considered - len(selection), unparsed=decoded.unparsed, cut=cut,
            replaced=sum(n - batch.first_sequence in decoded.replaced for n in sequences)
            if decoded.replaced else 0,
            received=[(batch.received_at, len(messages))],
            last_type=selection.events[-1].type if messages else "", failed=failed,
        )  # fmt: skip
        return self._portions(whole)

    def first_wanted(self, batch: Batch, position: int) -> int:
        """The first record from `position` on that the filter takes; the batch's end if none."""
        selection = self._select(self._decoded.get(batch), position)
        return selection.sequences[0] if len(selection) else batch.next_sequence

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
        """Each event by itself: the messages, and (sequence, why) of those that cannot be made.

        A bug about one event must not stop the sink for ever, and must not lose the event.
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

    def _cut(
        self, messages: list[bytes], decoded: DecodedBatch, sequences: list[int]
    ) -> tuple[list[bytes], int]:
        """The messages within the limit, and how many of them were over it."""
        limit = self._max_message_bytes
        if limit is None or not messages or max(map(len, messages)) <= limit:
            return messages, 0
        first = decoded.batch.first_sequence
        over = [at for at, message in enumerate(messages) if len(message) > limit]
        messages = list(messages)  # those of `raw` are the very records that all sinks share
        for at in over:
            index = sequences[at] - first
            try:
                messages[at] = shortened(self._format, decoded, index, messages[at], limit)
            except Exception as error:  # noqa: BLE001  (a bug must not stop the sink for ever)
                _log.error("internal error: message cut as bytes",
                           source=decoded.batch.source, sequence=sequences[at],
                           exc_info=error)  # fmt: skip
                messages[at] = cut_utf8(messages[at], limit)
        return messages, len(over)

    def _portions(self, run: DeliveryBatch) -> Iterator[DeliveryBatch]:
        limits, messages = self._limits, run.messages
        if limits.max_events is None or limits.max_bytes is None:
            yield run
            return
        start = size = 0
        received_at = run.received[0][0]
        for i, message in enumerate(messages):
            length = len(message) + _SEPARATOR_BYTES
            if i > start and (i - start >= limits.max_events or size + length > limits.max_bytes):
                yield DeliveryBatch(run.sequences[i], messages[start:i], run.sequences[start:i],
                          received=[(received_at, i - start)], last_type=run.last_type)  # fmt: skip
                start, size = i, 0
            size += length
        run.messages, run.sequences = messages[start:], run.sequences[start:]
        run.received = [(received_at, len(run.messages))]
        yield run

    def join(self, run: DeliveryBatch, more: DeliveryBatch) -> bool:
        """Add `more` to `run` if the limits allow; False leaves both as they were."""
        limits = self._limits
        if not limits.max_wait_s or limits.max_events is None or limits.max_bytes is None:
            return False
        if len(run.messages) + len(more.messages) > limits.max_events:
            return False
        if run.size_bytes + more.size_bytes > limits.max_bytes:
            return False
        run.next_sequence = more.next_sequence
        run.messages += more.messages
        run.sequences += more.sequences
        run.filtered += more.filtered
        run.unparsed += more.unparsed
        run.cut += more.cut
        run.replaced += more.replaced
        run.received += more.received
        run.last_type = more.last_type or run.last_type
        run.failed += more.failed
        return True

    def full(self, run: DeliveryBatch) -> bool:
        """Whether waiting for more would add nothing."""
        limits = self._limits
        return not limits.max_wait_s or len(run.messages) >= (limits.max_events or 1)
