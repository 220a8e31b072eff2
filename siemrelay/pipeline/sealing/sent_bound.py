"""How far records may have been sent in a stream, as its state says it to the next process.

A killed relay leaves a cursor behind what it had sent. A new seal may take no number under which a
message may have been sent before, so the next process must know where that ends. The bound is
stored before anything behind it is sent, some seconds ahead, and with each seal: a slow stream
never stores it alone.
"""

from __future__ import annotations

from typing import Final

import trio

# So far ahead: long enough that storing it costs nothing, short enough that after a kill the first
# seal soon comes, whatever waits in the buffer.
_AHEAD_S: Final = 5.0
_LEAST_RECORDS: Final = 10_000
_MOST_RECORDS: Final = 1_000_000

# A rate that is measured over less time says nothing.
_LEAST_S: Final = 0.1


class SentBound:
    """Follows how fast one stream is sent."""

    def __init__(self) -> None:
        self._position: int | None = None
        self._at_s = 0.0

    def ahead_of(self, position: int) -> int:
        """The bound to store when the record `position` is the next to be sent."""
        now_s, before = trio.current_time(), self._position
        per_s = 0.0
        if before is not None:
            per_s = (position - before) / max(now_s - self._at_s, _LEAST_S)
        self._position, self._at_s = position, now_s
        return position + int(min(max(per_s * _AHEAD_S, _LEAST_RECORDS), _MOST_RECORDS))
