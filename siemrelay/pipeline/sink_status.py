"""One sink's state and counters: updates the stats and logs changes of state."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Final

import trio

from siemrelay.core.backoff import HOLD_ADVICE
from siemrelay.formats.writing.text import sanitize_for_display
from siemrelay.log import get_logger
from siemrelay.pipeline.batching import DeliveryBatch
from siemrelay.telemetry.stats import SinkStats

_log = get_logger()

# A receiver's error message is part of the reason: enough to act on, too little to flood a log.
_REASON_CHARACTERS: Final = 1000

# A second relay on the same queue makes every event a duplicate.
_LOG_DUPLICATES_EVERY_S: Final = 60.0


class SinkStatus:
    """Maintains one sink's stats; logs a change of state once, however often it is reported."""

    def __init__(self, name: str, stats: SinkStats, undelivered: Callable[[], int]) -> None:
        self._name, self._stats, self._undelivered = name, stats, undelivered
        self._logged_state = ""
        self._unlogged_duplicates, self._log_duplicates_at_s = 0, -math.inf

    def note(self, state: str, reason: str = "") -> None:
        """Set the state, one of `stats.STATES`, and the reason for it."""
        stats = self._stats
        if reason:
            reason = sanitize_for_display(reason, _REASON_CHARACTERS)
        if (stats.state, stats.reason) == (state, reason):
            return
        # Compared with what was logged: a sink starts as waiting, and its first failure is news.
        if self._logged_state != state or state == "holding":
            self._logged_state = state
            log = {"up": _log.info, "waiting": _log.warning}.get(state, _log.error)
            details = {"reason": reason} if reason else {}
            if state == "holding":
                details["next"] = HOLD_ADVICE
            log(f"sink {state}", sink=self._name, **details, undelivered=self._undelivered())
        if stats.state != state:
            stats.since = time.time()
        stats.state, stats.reason = state, reason
        if reason:
            stats.last_error, stats.last_error_at = reason, time.time()

    def found_duplicates(self, sequences: Sequence[int]) -> None:
        """The peer had these records when they were first sent. Logged at most once a minute."""
        self._unlogged_duplicates += len(sequences)
        now_s = trio.current_time()
        if now_s >= self._log_duplicates_at_s:
            _log.warning(
                "duplicate records", sink=self._name, records=self._unlogged_duplicates,
                first_sequence=sequences[0],
                reason="the receiver already holds the same bytes from the same source",
                advice="expected after a queue or a sender delivered records again; otherwise see "
                "whether another relay or sink writes to the same place",
            )  # fmt: skip
            self._unlogged_duplicates = 0
            self._log_duplicates_at_s = now_s + _LOG_DUPLICATES_EVERY_S

    def failed(self) -> None:
        """Count a failed attempt."""
        self._stats.retries += 1

    def progressed(self) -> None:
        """Record a sign of life."""
        self._stats.progress_at = trio.current_time()

    def settled(self, batch: DeliveryBatch, refused: int, duplicates: int = 0) -> None:
        """Note a settled batch, of which the receiver refused some and had some already.

        What became of its records is counted by the buffer, with the sink's cursor.
        """
        stats, now = self._stats, time.time()
        stats.unparsed += batch.unparsed
        stats.truncated_messages += batch.truncated
        stats.invalid_utf8 += batch.invalid_utf8
        self.progressed()
        if batch.messages:
            stats.sent_bytes += sum(map(len, batch.messages))
            stats.last_type = batch.last_type
            # A refused message has no delivery time.
            left = len(batch.messages) - refused - duplicates
            for received_at, count in batch.received:
                stats.delivery_s.observe(max(now - received_at, 0.0), min(count, left))
                left -= min(count, left)
