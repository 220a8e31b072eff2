"""When a byte stream is read and handed over: at once, or together with the others."""

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
        self.flows = False
        """Whether the last read was a large one."""

    def note_read(self, read_bytes: int) -> None:
        """Note how much a read has brought."""
        self._longest_s = _SHORT_WAIT_S if self.flows else math.inf
        self.flows = read_bytes >= _BATCH_BYTES

    async def turn(self) -> None:
        """Wait for the moment to read, or to hand over what was read; see `Intake.turn`."""
        if not self.flows:
            await self._intake.turn(self._longest_s)
