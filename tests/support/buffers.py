"""What tests of many parts do with a disk buffer."""

from __future__ import annotations

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.buffer.sink_cursor import Outcome


def advance(buffer: DiskBuffer, sink: str, next_sequence: int) -> None:
    """Settle every record before `next_sequence` as delivered."""
    passed = max(next_sequence - buffer.cursor(sink).next_sequence, 0)
    buffer.advance(sink, next_sequence, Outcome(delivered=passed))
