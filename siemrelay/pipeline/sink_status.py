"""One sink's state and counters: updates the stats and logs changes of state."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog
import trio

from siemrelay.core.backoff import HOLD_ADVICE
from siemrelay.core.errors import BatchRefused
from siemrelay.core.lines import size_of
from siemrelay.formats.writing.text import sanitize_for_display
from siemrelay.pipeline.batching import DeliveryBatch
from siemrelay.sinks.contract import Certified, ConnectsLazily, Refusal
from siemrelay.telemetry.stats import SinkStats, count_types

_log = structlog.get_logger()

# A receiver's error message is part of the reason: enough to act on, too little to flood a log.
_REASON_CHARACTERS: Final = 1000

# A second relay on the same queue makes every event a duplicate.
_LOG_DUPLICATES_EVERY_S: Final = 60.0

# A receiver that limits what it takes refuses and takes in turn: that is one state for the log,
# until it has taken everything for so long.
_THROTTLED_S: Final = 60.0


class SinkStatus:
    """Maintains one sink's stats; logs a change of state once, however often it is reported."""

    def __init__(
        self, name: str, sink: object, stats: SinkStats, undelivered: Callable[[], int]
    ) -> None:
        """`sink` is asked for its certificate, if it has one, and whether it connects lazily."""
        self._name, self._stats, self._undelivered = name, stats, undelivered
        self._certified = sink if isinstance(sink, Certified) else None
        self._connects_lazily = isinstance(sink, ConnectsLazily)
        self._logged_state = ""
        self._unlogged_duplicates, self._log_duplicates_at_s = 0, -math.inf
        self._throttled_until_s = -math.inf

    def opened(self, *, quiet: bool) -> None:
        """A session is open. `quiet`: the state stays, since the last one failed to deliver."""
        self._note_certificate()
        if quiet:
            return
        if not self._connects_lazily:
            self.note("up")
        elif self._stats.state != "up":
            self.note("connecting")

    def isolating(self, refused: BatchRefused) -> None:
        """A batch was refused as a whole: nothing counts as delivered until its culprits are found,
        which takes a request for each of a few messages.
        """
        reason = sanitize_for_display(f"{refused.code} {refused.reason}", _REASON_CHARACTERS)
        self._stats.last_error = (
            f"the receiver refused a batch, and is asked in parts which of its events it means: "
            f"{reason}"
        )
        self._stats.last_error_at = time.time()

    def only_refused(self, last: Refusal) -> None:
        """The receiver refused all of a batch: it is no sign that it takes anything."""
        if self._stats.state != "up":
            self.note(
                "waiting",
                "the receiver refuses every event (`siemrelay buffer dead-letters` lists them), "
                f"the last one with {last.code} {last.reason}",
            )

    def note(self, state: str, reason: str = "", *, throttled: bool = False) -> None:
        """Set the state, one of `stats.STATES`, and the reason for it.

        `throttled`: the receiver limits what it takes. The log has that once, however often the
        sink waits for it and delivers in between.
        """
        stats = self._stats
        if state == stats.state == self._logged_state == "up":
            return
        if throttled:
            self._throttled_until_s = trio.current_time() + _THROTTLED_S
        if reason:
            reason = sanitize_for_display(reason, _REASON_CHARACTERS)
        changed = stats.state != state or stats.reason != reason
        if state == "up":
            news = self._logged_state != state and trio.current_time() >= self._throttled_until_s
        else:
            news = changed and (self._logged_state != state or state == "holding")
        if news and state != "connecting":
            self._logged_state = state
            log = {"up": _log.info, "waiting": _log.warning}.get(state, _log.error)
            details = {"reason": reason} if reason else {}
            if state == "holding":
                details["next"] = HOLD_ADVICE
            log(f"sink {state}", sink=self._name, **details, undelivered=self._undelivered())
        if not changed:
            return
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

    def progressed(self) -> float:
        """Record a sign of life, on the loop's clock; returns what that says."""
        self._stats.progress_at = now_s = trio.current_time()
        return now_s

    def left_out(self, sampled: Mapping[str, int]) -> None:
        """Count events that the sink's sample left out, by type."""
        count_types(self._stats.sampled, sampled)

    def settled(self, batch: DeliveryBatch, refused: int = 0, duplicates: int = 0) -> None:
        """Note a settled batch, of which the receiver refused some and had some already.

        What became of its records is counted by the buffer, with the sink's cursor.
        """
        stats, now = self._stats, time.time()
        stats.unparsed += batch.unparsed
        stats.truncated_messages += batch.truncated
        stats.redacted += batch.redacted
        if batch.sampled:
            self.left_out(batch.sampled)
        stats.invalid_utf8 += batch.invalid_utf8
        if batch.messages:
            if self._connects_lazily:
                self._note_certificate()
            stats.sent_bytes += size_of(batch.messages)
            stats.last_type = batch.last_type
            # A refused message has no delivery time.
            left = len(batch.messages) - refused - duplicates
            for received_at, count in batch.received:
                stats.delivery_s.observe(max(now - received_at, 0.0), min(count, left))
                left -= min(count, left)

    def _note_certificate(self) -> None:
        if self._certified is not None:
            self._stats.certificate_expires_at = self._certified.certificate_expires_at
