"""One sink's cursor: where it is, what became of the records before it, and by what policy."""

from __future__ import annotations

from typing import Any

import msgspec

from siemrelay.buffer.rows import StoredCursor
from siemrelay.proof.stream import Confirmed, StreamState
from siemrelay.telemetry.stats import SinkCounts


class SinkPolicy(msgspec.Struct, frozen=True):
    """How a sink's records are treated, from the configuration.

    `drop_oldest`: they give way when the buffer is full; otherwise intake waits for the sink.
    `start_at_oldest`: a new sink begins at the oldest record kept, otherwise at the next one.
    `enabled`: a sink that is disabled or paused keeps its cursor while there is room, and never
    makes intake wait.
    """

    drop_oldest: bool = False
    start_at_oldest: bool = True
    enabled: bool = True

    @property
    def gives_way(self) -> bool:
        """Whether intake does not wait for the sink in a full buffer."""
        return self.drop_oldest or not self.enabled


class Outcome(msgspec.Struct, frozen=True):
    """How records that a cursor passes were settled; `confirmed_at` 0 if no receiver had a part.

    See `SinkCounts` for the names. `confirmed` is what became of the messages of a sealed stream.
    """

    delivered: int = 0
    duplicates: int = 0
    filtered: int = 0
    refused: int = 0
    confirmed_at: float = 0.0
    confirmed: Confirmed | None = None


class SinkCursor(msgspec.Struct):
    """One sink's cursor: `next_sequence` is the first record that is not settled for it.

    Invariant: `counts.settled()` == `next_sequence` - `first_sequence`, where the sink began.
    """

    name: str
    next_sequence: int
    first_sequence: int
    policy: SinkPolicy
    counts: SinkCounts
    stream: StreamState | None = None

    def stored(self) -> StoredCursor:
        """As it is kept on disk."""
        rest: list[Any] = [*msgspec.structs.astuple(self.counts)]
        rest.append(self.stream.written() if self.stream is not None else "")
        return StoredCursor(self.next_sequence, self.first_sequence, *rest)

    def after(self, next_sequence: int, outcome: Outcome) -> StoredCursor:
        """As it will be kept on disk once it has passed these records."""
        copy = msgspec.structs.replace(self, counts=msgspec.structs.replace(self.counts))
        copy.pass_records(next_sequence, outcome)
        return copy.stored()

    def pass_records(self, next_sequence: int, outcome: Outcome) -> int:
        """Move on to `next_sequence` and count; returns how many records on the way are missing.

        Records that were given up while they were in flight are counted as dropped already, and
        not again by what became of them later.
        """
        counts = self.counts
        counts.last_success_at = outcome.confirmed_at or counts.last_success_at
        left = next_sequence - self.next_sequence
        self._pass_in_stream(next_sequence, outcome)
        if left <= 0:
            return 0
        self.next_sequence = next_sequence
        # The earliest records were given up; the least remarkable outcomes give way.
        counts.refused += (refused := min(outcome.refused, left))
        left -= refused
        counts.duplicates += (duplicates := min(outcome.duplicates, left))
        left -= duplicates
        counts.filtered += (filtered := min(outcome.filtered, left))
        left -= filtered
        counts.delivered += (delivered := min(outcome.delivered, left))
        left -= delivered
        counts.lost += left
        return left

    def _pass_in_stream(self, next_sequence: int, outcome: Outcome) -> None:
        stream = self.stream
        if stream is None or (outcome.delivered and outcome.confirmed is None):
            return  # what is delivered without a number parts stream and cursor
        if outcome.confirmed is not None:
            stream = stream.confirmed(outcome.confirmed)
        elif stream.next_sequence != self.next_sequence:
            return
        if next_sequence > self.next_sequence:
            stream = msgspec.structs.replace(stream, next_sequence=next_sequence)
        self.stream = stream
