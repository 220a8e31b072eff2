"""The relay's status as one value: `/status` serves it, `siemrelay status` reads it."""

from __future__ import annotations

import time
from typing import Final

import msgspec

from siemrelay import __version__
from siemrelay.core.own_commands import DEFAULT_FILE, with_config
from siemrelay.formats.writing.text import sanitize_for_display
from siemrelay.telemetry.health import stuck, unready
from siemrelay.telemetry.log import Redactor
from siemrelay.telemetry.rates import HISTORY_EVERY_S, History, Rates
from siemrelay.telemetry.stats import (
    RemovedSink,
    SealStatus,
    SinkStats,
    SourceStats,
    Stats,
    TimestampStatus,
)

_TROUBLED: Final = ("connecting", "waiting", "holding", "failed", "paused")

# Long enough for a reason with its advice; and for the one line that systemd shows.
_MESSAGE_CHARACTERS: Final = 1000
_LINE_CHARACTERS: Final = 300


class SourceReport(msgspec.Struct, frozen=True):
    """One source. Times are seconds since the epoch, None where there was nothing yet."""

    name: str
    records: int
    per_s: float
    bytes: int
    last_record_at: float | None
    lag_bytes: int
    connections: int
    filtered: int
    refused: dict[str, int]
    upstream_dropped: int
    lost_bytes: int
    restarts: int
    last_error: str
    files: int | None = None
    state: str = "up"
    """`failed` while it cannot run, else `up`; `last_error` says why."""
    credentials_fault: str = ""
    """Why changed TLS or secret files are not used yet."""
    unreadable_files: int = 0
    unparsed_share: float = 0.0
    """Of the records looked at lately, from 0 to 1."""
    unparsed_why: str = ""
    """Why the first of them cannot be parsed, while they are too many."""
    limited: dict[str, int] = {}
    """Events that `limit` left out since the start, by type; they count as filtered, too."""


class SinkReport(msgspec.Struct, frozen=True):
    """One sink; `reason` says why it is not up, `last_error` is the latest reason so far."""

    name: str
    state: str
    reason: str
    since: float
    delivered: int
    per_s: float
    filtered: int
    dead_lettered: int
    dropped: int
    retries: int
    backlog: int
    oldest_undelivered_at: float | None
    last_success_at: float | None
    last_type: str
    last_error: str
    last_error_at: float | None
    certificate_expires_at: float | None
    duplicates: int = 0
    missing: int = 0
    credentials_fault: str = ""
    """Why changed TLS or secret files are not used yet."""
    seal: SealStatus | None = None
    """Of a sink with `seal:`, once it has connected."""
    timestamps: TimestampStatus | None = None
    """Of a sink whose seals get time stamps."""


class BufferReport(msgspec.Struct, frozen=True):
    """The disk buffer."""

    size_bytes: int
    oldest_received_at: float | None
    full: bool
    dead_letters: dict[str, int]
    held_by: list[str] = []
    max_size_bytes: int = 0
    removed: dict[str, RemovedSink] = {}
    disk_full: bool = False


class RelayReport(msgspec.Struct, frozen=True):
    """The whole relay; `troubles` lists why it is not ready or not making progress."""

    version: str
    at: float
    started_at: float
    troubles: list[str]
    sources: list[SourceReport]
    sinks: list[SinkReport]
    buffer: BufferReport
    reload_error: str = ""
    """The first fault of the last reload, if that was refused."""
    config_file: str = ""
    """The configuration file that the relay runs with, for commands that are advised."""


class HistoryReport(msgspec.Struct, frozen=True):
    """The last hour by part, a point every `every_s` seconds, oldest first.

    `sources` and `sinks` are records a second, `backlogs` the records that wait for each sink.
    """

    at: float
    every_s: float
    sources: dict[str, list[float]]
    sinks: dict[str, list[float]]
    backlogs: dict[str, list[float]]


class StatusReporter:
    """Builds reports from the stats, with rates from samples. Secrets are redacted."""

    def __init__(self, stats: Stats, redactor: Redactor, config_file: str = DEFAULT_FILE) -> None:
        """`config_file` is what the commands in messages are about."""
        self._stats, self._redactor, self._file = stats, redactor, config_file
        self._rates = Rates()
        self._sources, self._sinks = History(), History()
        self._backlogs = History(gauges=True)

    def sample(self, now: float) -> None:
        """Sample the counters for the rates; `now` is on the clock of `progress_at`."""
        sources = {name: source.records for name, source in self._stats.sources.items()}
        sinks = {name: sink.delivered for name, sink in self._stats.sinks.items()}
        counts = {f"source {name}": count for name, count in sources.items()}
        counts |= {f"sink {name}": count for name, count in sinks.items()}
        self._rates.sample(now, counts)
        self._sources.sample(now, sources)
        self._sinks.sample(now, sinks)
        backlogs = {name: sink.backlog for name, sink in self._stats.sinks.items()}
        self._backlogs.sample(now, backlogs)

    def history(self) -> HistoryReport:
        """The last hour of every part, for the page's sparklines."""
        return HistoryReport(
            time.time(), HISTORY_EVERY_S, self._sources.series(), self._sinks.series(),
            self._backlogs.series(),
        )  # fmt: skip

    def status(self, now: float) -> RelayReport:
        """The report as of `now`, on the same clock as in `sample`."""
        stats, buffer = self._stats, self._stats.buffer
        return RelayReport(
            __version__, time.time(), stats.started_at, [*unready(stats), *stuck(stats, now)],
            [self._source(source) for source in stats.sources.values()],
            [self._sink(sink) for sink in stats.sinks.values()],
            BufferReport(buffer.size_bytes, buffer.oldest_received_at, buffer.full,
                         dict(buffer.dead_letters), list(buffer.held_by),
                         buffer.max_size_bytes, dict(buffer.removed), buffer.disk_full),
            self._clean(stats.reload.error), self._file,
        )  # fmt: skip

    def line(self) -> str:
        """One line for systemd: which parts are not up and why, or that all sinks are up."""
        sinks = self._stats.sinks.values()
        failed = [source for source in self._stats.sources.values() if source.failed]
        troubled = [f"source {source.name} failed: {source.last_error}" for source in failed]
        troubled += [
            f"{s.name} {s.state}{': ' if s.reason else ''}{s.reason}"
            for s in sinks
            if s.state in _TROUBLED
        ]
        backlog = max((sink.backlog for sink in sinks), default=0)
        summary = self._clean("; ".join(troubled), _LINE_CHARACTERS) or "all sinks up"
        return f"{summary}; largest backlog {backlog} records"

    def _clean(self, text: str, most: int = _MESSAGE_CHARACTERS) -> str:
        # Redact before truncating: the rest of a cut secret would not be recognised.
        return sanitize_for_display(with_config(self._redactor.text(text), self._file), most)

    def _source(self, source: SourceStats) -> SourceReport:
        return SourceReport(
            source.name, source.records, self._rates.per_s(f"source {source.name}"), source.bytes,
            source.last_record_at or None, source.lag_bytes, source.connections, source.filtered,
            dict(source.refused), source.upstream_dropped, source.lost_bytes, source.restarts,
            self._clean(source.last_error), source.files, "failed" if source.failed else "up",
            self._clean(source.credentials_fault), source.unreadable_files,
            source.unparsed_share, self._clean(source.unparsed_why),
            {self._clean(name): count for name, count in source.limited.items()},
        )  # fmt: skip

    def _timestamps(self, status: TimestampStatus | None) -> TimestampStatus | None:
        if status is None:
            return None
        return TimestampStatus(status.at, self._clean(status.fault))

    def _sink(self, sink: SinkStats) -> SinkReport:
        return SinkReport(
            sink.name, sink.state, self._clean(sink.reason), sink.since, sink.delivered,
            self._rates.per_s(f"sink {sink.name}"), sink.counts.filtered, sink.counts.refused,
            sink.counts.dropped, sink.retries, sink.backlog, sink.oldest_undelivered_at,
            sink.counts.last_success_at or None, self._clean(sink.last_type),
            self._clean(sink.last_error), sink.last_error_at, sink.certificate_expires_at,
            sink.counts.duplicates, sink.counts.lost, self._clean(sink.credentials_fault),
            sink.seal, self._timestamps(sink.timestamps),
        )  # fmt: skip
