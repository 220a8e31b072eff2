"""Coalescing: records that come one by one are handed over together, so many times a second.

`Coalescer` does so for sources, `RequestPace` for sinks that fill requests.
"""

from __future__ import annotations

import math
from typing import Final

import trio

from siemrelay.net.clock import sleep_until
from siemrelay.net.tasks import Broadcast

# After a pause a sink may send at once as many requests as two seconds hold, ten at most: an alarm
# of some events arrives without delay, and one who asks for seldom requests gets these.
_AT_ONCE_S: Final = 2.0
_MOST_AT_ONCE: Final = 10


class Coalescer:
    """The moments at which the sources hand over what they have.

    What comes after a pause goes at once. While more comes, everybody waits for the same moment, at
    most `window_s` after the last one: however few records there are, a batch costs a millisecond
    from the disk to the sinks.
    """

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self._last_at, self._next_at = -math.inf, math.inf
        self._moment = Broadcast()

    async def turn(self, at_most_s: float = math.inf) -> bool:
        """Wait for the next moment, for `at_most_s` after the last one; yields only if it waits.

        Returns whether it has waited.
        """
        now, due_at = trio.current_time(), self._last_at + min(self.window_s, at_most_s)
        if now >= due_at:
            self._last_at = now
            self._moment.wake_all()
            return False
        if self._next_at <= due_at:
            await self._moment.wait()
        else:
            # One of those that wait keeps the time for all. If it is cancelled they go early.
            self._next_at = due_at
            try:
                await sleep_until(due_at)
            finally:
                self._next_at = math.inf
                self._last_at = trio.current_time()
                self._moment.wake_all()
        return True


class RequestPace:
    """When a request that is not full is due: a token bucket (GCRA, ITU-T I.371, Annex A).

    In a steady trickle one is sent every `max_wait_s`, with what came meanwhile. After a pause the
    first ones, as many as two seconds hold, 1 to 10, go at once. However many went, full ones
    too, the next waits for at most `max_wait_s` (test_coalescing.py).
    """

    def __init__(self, max_wait_s: float) -> None:
        at_once = min(_AT_ONCE_S / max_wait_s, _MOST_AT_ONCE) if max_wait_s else 1
        self._max_wait_s = max_wait_s
        self._credit_s = max(int(at_once) - 1, 0) * max_wait_s
        self.due_at = -math.inf
        """The next one need not wait after this time of the loop's clock, in seconds."""

    def note_sent(self, now: float) -> None:
        """A request was handed over."""
        spent_until = max(self.due_at + self._credit_s, now) + self._max_wait_s
        self.due_at = min(spent_until - self._credit_s, now + self._max_wait_s)
