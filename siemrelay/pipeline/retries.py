"""The pauses between a sink's attempts: longer with every failure, until a batch arrives."""

from __future__ import annotations

import random
from typing import Final

import msgspec

from siemrelay.core.backoff import HOLD_PROBE_S, delay_s
from siemrelay.core.errors import DeliveryError, SinkHolds, SinkWaits

# The longest Retry-After that is honoured: enough for a receiver's maintenance, too short for a
# mistaken value to silence the sink for a day.
_LONGEST_ASKED_S: Final = 900.0


class Retry(msgspec.Struct, frozen=True):
    """The bounds of the pauses, in seconds."""

    initial_s: float
    max_s: float


class Retries:
    """Counts the failures in a row and sets the pause after each."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self.failures = 0
        """Attempts that failed since the receiver last took a batch."""

    def pause_after(self, error: DeliveryError) -> float:
        """Count a failure; the seconds until the next attempt.

        A receiver's Retry-After is honoured up to 15 minutes.
        """
        self.failures += 1
        if isinstance(error, SinkHolds):
            return HOLD_PROBE_S
        initial_s, max_s = self._retry.initial_s, self._retry.max_s
        pause = delay_s(self.failures, initial_s, max_s, random=random.random)
        asked_s = error.after_s if isinstance(error, SinkWaits) else None
        return max(pause, min(asked_s or 0.0, _LONGEST_ASKED_S))

    def pause_after_idle(self) -> float:
        """The seconds after the end of an idle connection, which is no failure."""
        self.failures = 0
        return self._retry.initial_s

    def succeeded(self) -> None:
        """The receiver took a batch."""
        self.failures = 0
