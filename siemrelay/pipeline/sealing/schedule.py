"""When a seal is made: every so often, with many refusals, and at the stop."""

from __future__ import annotations

from typing import Final

import trio

from siemrelay.proof.stream import MOST_ABSENT, StreamState

# No more is sent while the stream lacks so many messages that no seal accounts for: what a state
# may hold is bounded. Reached only by a receiver that refuses nearly everything.
_BACKLOG: Final = 10 * MOST_ABSENT


class SealSchedule:
    """Decides for one stream; times are trio's."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._next_at_s, self._not_before_s, self._stopping = 0.0, 0.0, False

    def begin(self, since_s: float) -> None:
        """An attempt begins, so long after the last confirmed seal was made."""
        self._next_at_s = trio.current_time() + max(self._every_s - since_s, 0.0)

    def made(self) -> None:
        """One is made."""
        self._next_at_s = trio.current_time() + self._every_s

    def gave_up(self) -> None:
        """No message can carry the one that was made: try another one later."""
        self._not_before_s = self._next_at_s

    def stop(self) -> None:
        """From now on one is due whenever something is not under one."""
        self._stopping = True

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping

    def due(self, state: StreamState) -> str:
        """Why one is to be made now; empty if none is."""
        now = trio.current_time()
        if state.pending is not None or now < self._not_before_s:
            return ""
        if self._stopping and not state.is_sealed():
            return "stop"
        if len(state.absent) >= MOST_ABSENT:
            return "refusals"
        return "interval" if now >= self._next_at_s else ""

    def look_at_s(self, state: StreamState) -> float:
        """When to look again."""
        if state.pending is None:
            return self._next_at_s
        return max(self._next_at_s, trio.current_time() + self._every_s)

    @staticmethod
    def overflows(state: StreamState) -> bool:
        """Whether there are too many numbers without a message for which no seal accounts."""
        return len(state.absent) >= _BACKLOG

    def holds_up(self, state: StreamState) -> bool:
        """Whether a seal on its way holds up too many of them."""
        return state.pending is not None and self.overflows(state)
