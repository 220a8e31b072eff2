"""When a reader of a byte stream hands over what it has read: at once, or with the others."""

from __future__ import annotations

import math
from typing import Final

from siemrelay.sources.contract import Intake

# This much is a batch by itself: a fast writer does not wait for others.
_BATCH_BYTES: Final = 32 * 1024

# What a fast writer writes next waits no longer than this, in which it does not fill the pipe or
# the socket between them.
_SHORT_WAIT_S: Final = 0.005


class StreamPace:
    """Waits for the relay's `batch_window` where a stream trickles, and not where it flows."""

    def __init__(self, intake: Intake) -> None:
        self._intake, self._longest_s = intake, math.inf

    async def turn(self, read_bytes: int) -> None:
        """After a read of so many bytes: wait for the moment to hand over; see `Intake.turn`."""
        if read_bytes >= _BATCH_BYTES:
            self._longest_s = _SHORT_WAIT_S
            return
        longest_s, self._longest_s = self._longest_s, math.inf
        await self._intake.turn(longest_s)
