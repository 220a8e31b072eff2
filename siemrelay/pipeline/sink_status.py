"""How a sink stands: its state and counts, in numbers for metrics and in words for the log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog
import trio

from siemrelay.formats.writing.text import harmless
from siemrelay.pipeline.batching import DeliveryBatch
from siemrelay.telemetry.stats import SinkStats

_log = structlog.get_logger()

# Peers have a part in the words: enough to say why and what to mend, too little to flood a log.
_REASON_CHARACTERS: Final = 1000


class SinkStatus:
    """Keeps one sink's stats; a change of state is logged once, however often it is noted."""

    def __init__(self, name: str, stats: SinkStats, undelivered: Callable[[], int]) -> None:
        self._name, self._stats, self._undelivered = name, stats, undelivered
        self._logged_state = ""

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

    def failed(self) -> None:
        """An attempt failed."""
        self._stats.retries += 1

    def progressed(self) -> None:
        """The sink does something, be it with a result or not."""
        self._stats.progress_at = trio.current_time()

    def filtered(self, records: int) -> None:
        """So many records were passed that the filter leaves out."""
        self._stats.filtered += records

    def settled(self, run: DeliveryBatch, refused: int) -> None:
        """A run is settled; the peer refused so many of its messages."""
        stats, now = self._stats, time.time()
        stats.filtered += run.filtered
        stats.delivered += len(run.messages) - refused
        stats.dead_lettered += refused + len(run.failed)
        stats.unparsed += run.unparsed
        stats.cut += run.cut
        stats.replaced += run.replaced
        self.progressed()
        if run.messages:
            stats.sent_bytes += sum(map(len, run.messages))
            stats.last_success_at, stats.last_type = now, run.last_type
            left = len(run.messages) - refused  # what was refused was not delivered in any time
            for received_at, count in run.received:
                stats.delivery_s.observe(max(now - received_at, 0.0), min(count, left))
                left -= min(count, left)
