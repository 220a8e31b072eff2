"""How a sink stands: its state and counts, in numbers for metrics and in words for the log."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog
import trio

from siemrelay.formats.writing.text import harmless
from siemrelay.pipeline.batching import DeliveryBatch
from siemrelay.telemetry.stats import SinkStats

_log = structlog.get_logger()

# Peers have a part in the words: enough to say why and what to mend, too little to flood a log.
_REASON_CHARACTERS: Final = 1000

# A second relay on the same queue makes every event a duplicate.
_LOG_DUPLICATES_EVERY_S: Final = 60.0


class SinkStatus:
    """Keeps one sink's stats; a change of state is logged once, however often it is noted."""

    def __init__(self, name: str, stats: SinkStats, undelivered: Callable[[], int]) -> None:
        self._name, self._stats, self._undelivered = name, stats, undelivered
        self._logged_state = ""
        self._unlogged_duplicates, self._log_duplicates_at_s = 0, -math.inf

    def note(self, state: str, reason: str = "") -> None:
        """The sink is in this state, one of `stats.STATES`, for this reason."""
        stats, reason = self._stats, harmless(reason, _REASON_CHARACTERS)
        if (stats.state, stats.reason) == (state, reason):
            return
        # Not against `stats.state`: a sink begins as waiting, and its first failure is news.
        if self._logged_state != state or state == "holding":
            self._logged_state = state
            log = {"up": _log.info, "waiting": _log.warning}.get(state, _log.error)
            log(f"sink {state}", sink=self._name, **({"reason": reason} if reason else {}),
                undelivered=self._undelivered())  # fmt: skip
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
        """An attempt failed."""
        self._stats.retries += 1

    def progressed(self) -> None:
        """The sink does something, be it with a result or not."""
        self._stats.progress_at = trio.current_time()

    def filtered(self, records: int) -> None:
        """So many records were passed that the filter leaves out."""
        self._stats.filtered += records

    def settled(self, run: DeliveryBatch, refused: int, duplicates: int = 0) -> None:
        """A run is settled; the peer refused so many of its messages, and had so many already."""
        stats, now = self._stats, time.time()
        stats.filtered += run.filtered
        stats.delivered += len(run.messages) - refused - duplicates
        stats.duplicates += duplicates
        stats.dead_lettered += refused + len(run.failed)
        stats.unparsed += run.unparsed
        stats.cut += run.cut
        stats.replaced += run.replaced
        self.progressed()
        if run.messages:
            stats.sent_bytes += sum(map(len, run.messages))
            stats.last_success_at, stats.last_type = now, run.last_type
            left = (
                len(run.messages) - refused - duplicates
            )  # what was refused was not delivered in any time
            for received_at, count in run.received:
                stats.delivery_s.observe(max(now - received_at, 0.0), min(count, left))
                left -= min(count, left)
