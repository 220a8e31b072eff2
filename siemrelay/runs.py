"""From batches to runs: what one sink takes of the buffer, in the portions it sends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from siemrelay.decoded import DecodedCache
from siemrelay.event import Batch, DecodedBatch, Selection
from siemrelay.filters import EventFilter
from siemrelay.formats.contract import Format
from siemrelay.formats.text import cut_utf8
from siemrelay.sinks.contract import RunLimits
from siemrelay.stats import SinkStats


@dataclass(slots=True)
class Run:
    """Messages that are sent together, and the records that they settle.

    `next_sequence` is the first record after those that this run settles, be it by a message or by
    the filter. `received` has (when, how many messages) for the delivery times.
    """

    next_sequence: int
    messages: list[bytes] = field(default_factory=list)
    sequences: list[int] = field(default_factory=list)
    filtered: int = 0
    unparsed: int = 0
    received: list[tuple[float, int]] = field(default_factory=list)
    last_type: str = ""


class RunMaker:
    """One sink's view of batches: filtered, formatted, cut to size, portioned."""

    def __init__(
        self, decoded: DecodedCache, events: EventFilter, form: Format, limits: RunLimits,
        max_message_bytes: int | None, stats: SinkStats,
    ) -> None:  # fmt: skip
        self._decoded, self._events, self._format = decoded, events, form
        self._limits, self._max_message_bytes = limits, max_message_bytes
        self._stats = stats

    def runs(self, batch: Batch, position: int) -> Iterator[Run]:
        """The runs for the records of a batch from `position` on; at least one, in order."""
        decoded = self._decoded.get(batch)
        selection = self._select(decoded, position)
        messages = self._cut(self._format.encode(selection))
        considered = batch.next_sequence - max(position, batch.first_sequence)
        whole = Run(
            batch.next_sequence, messages, list(selection.sequences),
            filtered=considered - len(messages), unparsed=decoded.unparsed,
            received=[(batch.received_at, len(messages))],
            last_type=selection.events[-1].type if messages else "",
        )  # fmt: skip
        return self._portions(whole)

    def _select(self, decoded: DecodedBatch, position: int) -> Selection:
        keep = self._events.select(decoded.events)
        skip = position - decoded.batch.first_sequence
        if skip > 0:
            rest = keep[skip:] if keep is not None else [True] * (decoded.batch.count - skip)
            keep = [False] * skip + rest
        return Selection(decoded, keep)

    def _cut(self, messages: list[bytes]) -> list[bytes]:
        limit = self._max_message_bytes
        if limit is None or not messages or max(map(len, messages)) <= limit:
            return messages
        self._stats.cut += sum(len(message) > limit for message in messages)
        return [cut_utf8(message, limit) for message in messages]

    def _portions(self, run: Run) -> Iterator[Run]:
        limits, messages = self._limits, run.messages
        if limits.max_events is None or limits.max_bytes is None:
            yield run
            return
        start = size = 0
        received_at = run.received[0][0]
        for i, message in enumerate(messages):
            if i > start and (
                i - start >= limits.max_events or size + len(message) > limits.max_bytes
            ):
                yield Run(run.sequences[i], messages[start:i], run.sequences[start:i],
                          received=[(received_at, i - start)], last_type=run.last_type)  # fmt: skip
                start, size = i, 0
            size += len(message)
        yield Run(
            run.next_sequence, messages[start:], run.sequences[start:], run.filtered, run.unparsed,
            [(received_at, len(messages) - start)], run.last_type,
        )  # fmt: skip

    def join(self, run: Run, more: Run) -> bool:
        """Add `more` to `run` if the limits allow; False leaves both as they were."""
        limits = self._limits
        if not limits.max_wait_s or limits.max_events is None or limits.max_bytes is None:
            return False
        if len(run.messages) + len(more.messages) > limits.max_events:
            return False
        if sum(map(len, run.messages)) + sum(map(len, more.messages)) > limits.max_bytes:
            return False
        run.next_sequence = more.next_sequence
        run.messages += more.messages
        run.sequences += more.sequences
        run.filtered += more.filtered
        run.unparsed += more.unparsed
        run.received += more.received
        run.last_type = more.last_type or run.last_type
        return True

    def full(self, run: Run) -> bool:
        """Whether waiting for more would add nothing."""
        limits = self._limits
        return not limits.max_wait_s or len(run.messages) >= (limits.max_events or 1)
