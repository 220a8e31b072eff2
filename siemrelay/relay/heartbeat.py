"""Once a second: refresh the gauges, sample the rates, tell systemd that the relay lives."""

from __future__ import annotations

import time
from typing import Final

import structlog
import trio

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.net.clock import sleep_until
from siemrelay.net.tasks import second_after
from siemrelay.relay.systemd import Notifier
from siemrelay.telemetry.health import stuck
from siemrelay.telemetry.stats import RemovedSink, Stats
from siemrelay.telemetry.status import StatusReporter

_log = structlog.get_logger()

_INTERVAL_S: Final = 1.0


class Heartbeat:
    """Proves that the loop runs and that every part makes progress."""

    def __init__(
        self, buffer: DiskBuffer, stats: Stats, reporter: StatusReporter, notifier: Notifier
    ) -> None:
        self._buffer, self._stats = buffer, stats
        self._reporter, self._notifier = reporter, notifier
        # When the records arrived at which sinks stand: each is read once, from the disk, for all
        # sinks and scrapes (test_heartbeat.py). A hundred reads would make a scrape late in a rush.
        self._arrivals: dict[int, float | None] = {}

    async def run(self) -> None:
        """Beat until cancelled. While a part is stuck the watchdog is not fed: systemd restarts."""
        interval_s = min(_INTERVAL_S, self._notifier.watchdog_interval_s)
        while True:
            now = self._stats.loop_at = trio.current_time()
            self.refresh_backlog()
            self._reporter.sample(now)
            found = stuck(self._stats, now)
            if found:
                _log.error("no progress", parts=found)
            elif self._notifier.is_wanted:
                self._notifier.alive(self._reporter.line())
            await sleep_until(min(second_after(now), now + interval_s))

    def refresh_backlog(self) -> None:
        """Bring the gauges up to date that are known in memory."""
        buffer = self._stats.buffer
        buffer.held_by = self._buffer.holders() if buffer.full else []
        buffer.removed = {
            name: RemovedSink(
                self._buffer.end - cursor.next_sequence, since + buffer.keep_removed_s
            )
            for name, since in self._buffer.removed.items()
            if (cursor := self._buffer.find_cursor(name)) is not None
        }
        for name, sink in self._stats.sinks.items():
            if (cursor := self._buffer.find_cursor(name)) is None:
                continue  # a reload is removing it
            sink.holds_buffer = name in buffer.held_by
            sink.backlog = self._buffer.end - cursor.next_sequence
            sink.stored = self._buffer.end - cursor.first_sequence

    async def refresh(self) -> None:
        """Bring all gauges up to date, also those that are read from the disk, for a scrape.

        Afterwards all of them, and the counters and seals beside them, are of one moment, until the
        caller waits for something.
        """
        await self._buffer.note_commands()
        looked_at_s = time.time()
        before = self._first_undelivered()
        known = {sequence: self._arrivals.get(sequence) for sequence in before.values()}
        unknown = {sequence for sequence, received_at in known.items() if received_at is None}
        if unknown:
            # Read at once for all sinks: in a rush each reading waits for a turn of the loop.
            known |= await self._buffer.received_at(unknown)
        self._arrivals = known
        self.refresh_backlog()
        now = self._first_undelivered()
        for name, sink in self._stats.sinks.items():
            if name not in now:
                sink.oldest_undelivered_at = None
            else:
                # For a sink that has moved on meanwhile: its record arrived no earlier than that.
                earlier = known.get(before[name]) if name in before else looked_at_s
                sink.oldest_undelivered_at = known.get(now[name]) or earlier

    def _first_undelivered(self) -> dict[str, int]:
        """The first record that waits, by the sink that it waits for."""
        end = self._buffer.end
        return {
            name: cursor.next_sequence
            for name in self._stats.sinks
            if (cursor := self._buffer.find_cursor(name)) is not None and cursor.next_sequence < end
        }
