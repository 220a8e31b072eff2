"""How the relay does, in one value: what `/status` says and `siemrelay status` reads."""

from __future__ import annotations

import time
from typing import Final

import msgspec

from siemrelay import __version__
from siemrelay.formats.writing.text import harmless
from siemrelay.telemetry.health import stuck, unready
from siemrelay.telemetry.log import Redactor
from siemrelay.telemetry.rates import Rates
from siemrelay.telemetry.stats import SinkStats, SourceStats, Stats

_TROUBLED: Final = ("waiting", "holding")

# Enough to say why and what to mend; and on the one line that systemd shows.
_WORDS_CHARACTERS: Final = 1000
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
    lost: int
    restarts: int
    last_error: str


class SinkReport(msgspec.Struct, frozen=True):
    """One sink; `reason` says why it is not up, `last_error` what was the reason before."""

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


class BufferReport(msgspec.Struct, frozen=True):
    """The disk buffer."""

    size_bytes: int
    oldest_received_at: float | None
    full: bool
    dead_letters: dict[str, int]


class RelayReport(msgspec.Struct, frozen=True):
    """The whole relay; `troubles` has what keeps it from being ready or from going on."""

    version: str
    at: float
    started_at: float
    troubles: list[str]
    sources: list[SourceReport]
    sinks: list[SinkReport]
    buffer: BufferReport


class StatusReporter:
    """Samples a relay's stats once a second, and says how it does. Secrets are left out."""

    def __init__(self, stats: Stats, redactor: Redactor) -> None:
        self._stats, self._redactor = stats, redactor
        self._rates = Rates()

    def sample(self, now: float) -> None:
        """Note the counters, for the rates; `now` on the clock of `progress_at`."""
        stats = self._stats
        counts = {f"source {name}": source.records for name, source in stats.sources.items()}
        counts |= {f"sink {name}": sink.delivered for name, sink in stats.sinks.items()}
        self._rates.sample(now, counts)

    def status(self, now: float) -> RelayReport:
        """How it does; `now` as for `sample`."""
        stats, buffer = self._stats, self._stats.buffer
        return RelayReport(
            __version__, time.time(), stats.started_at, [*unready(stats), *stuck(stats, now)],
            [self._source(source) for source in stats.sources.values()],
            [self._sink(sink) for sink in stats.sinks.values()],
            BufferReport(buffer.size_bytes, buffer.oldest_received_at, buffer.full,
                         dict(buffer.dead_letters)),
        )  # fmt: skip

    def line(self) -> str:
        """The sinks that are not up and why, or that all are: one line for systemd."""
        sinks = self._stats.sinks.values()
        words = [f"{s.name} {s.state}: {s.reason}" for s in sinks if s.state in _TROUBLED]
        backlog = max((sink.backlog for sink in sinks), default=0)
        said = self._said("; ".join(words), _LINE_CHARACTERS) or "all sinks up"
        return f"{said}; largest backlog {backlog} records"

    def _said(self, words: str, most: int = _WORDS_CHARACTERS) -> str:
        # Peers and records have a part in them; what is cut or altered first hides no secret.
        return harmless(self._redactor.text(words), most)

    def _source(self, source: SourceStats) -> SourceReport:
        return SourceReport(
            source.name, source.records, self._rates.per_s(f"source {source.name}"), source.bytes,
            source.last_record_at or None, source.lag_bytes, source.connections, source.filtered,
            dict(source.refused), source.lost, source.restarts, self._said(source.last_error),
        )  # fmt: skip

    def _sink(self, sink: SinkStats) -> SinkReport:
        return SinkReport(
            sink.name, sink.state, self._said(sink.reason), sink.since, sink.delivered,
            self._rates.per_s(f"sink {sink.name}"), sink.filtered, sink.dead_lettered,
            sink.dropped, sink.retries, sink.backlog, sink.oldest_undelivered_at,
            sink.last_success_at or None, self._said(sink.last_type), self._said(sink.last_error),
            sink.last_error_at, sink.certificate_expires_at, sink.duplicates,
        )  # fmt: skip
