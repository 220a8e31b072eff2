"""The part of a buffer that a delivery uses."""

from __future__ import annotations

from collections.abc import Set
from typing import Protocol

from siemrelay.buffer.dead_letters import DeadLetter
from siemrelay.buffer.sink_cursor import Outcome, SinkCursor
from siemrelay.core.event import Batch


class Deliverable(Protocol):
    """Records in order, and a sink's cursor: `DiskBuffer`, or a range of one for a replay."""

    @property
    def end(self) -> int:
        """The sequence number after the last record."""

    def cursor(self, sink: str) -> SinkCursor:
        """The sink's cursor, live."""

    def advance(self, sink: str, next_sequence: int, outcome: Outcome) -> None:
        """Settle every record before `next_sequence` for the sink, as `outcome` counts them."""

    async def read(self, sequence: int) -> list[Batch]:
        """Batches from the one that holds `sequence` on, in order; waits until there is one."""

    async def records(self, wanted: Set[int]) -> dict[int, Batch]:
        """Records as batches of one, by sequence number; without those no longer stored."""

    async def store_dead_letters(
        self, letters: list[DeadLetter], next_sequence: int, outcome: Outcome
    ) -> None:
        """Store refused records as dead letters and `advance`; both are on disk at return."""
