"""Coalescing: records that come one by one are handed over together, so many times a second."""

from __future__ import annotations

import math

import trio

from siemrelay.net.clock import sleep_until
from siemrelay.net.tasks import Broadcast


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
            self._begin(now)
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
                self._begin(trio.current_time())
        return True

    def _begin(self, now: float) -> None:
        self._last_at = now
        self._moment.wake_all()
