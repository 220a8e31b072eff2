"""Every metric in one table, rendered for Prometheus at a scrape.

The parts count in plain numbers (`stats`). The first scrape imports the client library, so a start
does not wait for it.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from siemrelay import __version__
from siemrelay.telemetry.stats import STATES, Histogram, SinkStats, SourceStats, Stats

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Metric:
    """One row: `read` takes the stats of one source, sink or buffer and returns the value."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    read: Callable[[Any], Any]


def _age(moment_s: float | None) -> float:
    return max(time.time() - moment_s, 0.0) if moment_s else 0.0


SOURCE_METRICS: Final[tuple[Metric, ...]] = (
    Metric("records_total", "counter", "Records stored.", lambda s: s.records),
    Metric("bytes_total", "counter", "Bytes of records stored.", lambda s: s.bytes),
    Metric("last_record_timestamp_seconds", "gauge", "When the last record came in.",
           lambda s: s.last_record_at),
    Metric("lag_bytes", "gauge", "Bytes known to be waiting unread.", lambda s: s.lag_bytes),
    Metric("oversize_total", "counter", "Records over max_record_size, kept whole.",
           lambda s: s.oversize),
    Metric("filtered_total", "counter", "Records that the source's `events` left out, not stored.",
           lambda s: s.filtered),
    Metric("restarts_total", "counter", "Restarts after a failure.", lambda s: s.restarts),
    Metric("failed", "gauge", "1 while it cannot run; it is started again and again.",
           lambda s: int(s.failed)),
    Metric("upstream_dropped_total", "counter",
           "Records dropped before they reached the relay, as the kernel or the queue reports.",
           lambda s: s.upstream_dropped),
    Metric("lost_bytes_total", "counter", "Bytes of files that left before they were read.",
           lambda s: s.lost_bytes),
    Metric("files", "gauge", "Files that are followed now.", lambda s: s.files or 0),
    Metric("unreadable_files", "gauge", "Files that cannot be read now.",
           lambda s: s.unreadable_files),
    Metric("connections", "gauge", "Connections open.", lambda s: s.connections),
)  # fmt: skip

SINK_METRICS: Final[tuple[Metric, ...]] = (
    Metric("delivered_total", "counter", "Events confirmed by the receiver.",
           lambda s: s.delivered),
    Metric("filtered_total", "counter", "Events that `events` left out.",
           lambda s: s.counts.filtered),
    Metric("dead_lettered_total", "counter", "Events the receiver refused, kept as dead letters.",
           lambda s: s.counts.refused),
    Metric("duplicates_total", "counter",
           "Events that the receiver already held when they were first sent.",
           lambda s: s.counts.duplicates),
    Metric("dropped_total", "counter", "Records dropped because the buffer was full.",
           lambda s: s.counts.dropped),
    Metric("missing_total", "counter", "Records that were stored and are gone from the disk.",
           lambda s: s.counts.lost),
    Metric("stored_total", "counter", "Records stored since the sink was added.",
           lambda s: s.stored),
    Metric("retried_total", "counter", "Dead letters that a retry delivered.",
           lambda s: s.counts.retried),
    Metric("replayed_total", "counter", "Records that a replay delivered again.",
           lambda s: s.counts.replayed),
    Metric("retries_total", "counter", "Attempts that failed.", lambda s: s.retries),
    Metric("truncated_messages_total", "counter", "Messages truncated to max_message_size.",
           lambda s: s.truncated_messages),
    Metric("invalid_utf8_total", "counter",
           "Events with bytes that are not UTF-8, which were replaced.", lambda s: s.invalid_utf8),
    Metric("sent_bytes_total", "counter", "Bytes of messages confirmed.", lambda s: s.sent_bytes),
    Metric("backlog_records", "gauge", "Records neither delivered, filtered, dropped nor refused.",
           lambda s: s.backlog),
    Metric("holds_buffer", "gauge", "1 while the buffer is full and waits for this sink.",
           lambda s: int(s.holds_buffer)),
    Metric("oldest_undelivered_age_seconds", "gauge", "Age of the oldest record not settled.",
           lambda s: _age(s.oldest_undelivered_at)),
    Metric("last_success_timestamp_seconds", "gauge", "When the receiver last confirmed.",
           lambda s: s.counts.last_success_at),
    Metric("certificate_expiry_timestamp_seconds", "gauge",
           "When the peer's certificate ends; absent without one.",
           lambda s: s.certificate_expires_at),
    Metric("delivery_seconds", "histogram", "From received to confirmed.", lambda s: s.delivery_s),
)  # fmt: skip

BUFFER_METRICS: Final[tuple[Metric, ...]] = (
    Metric("size_bytes", "gauge", "Disk space of the records kept.", lambda b: b.size_bytes),
    Metric("oldest_age_seconds", "gauge", "Age of the oldest record kept.",
           lambda b: _age(b.oldest_received_at)),
    Metric("full", "gauge", "1 while intake waits for room.", lambda b: int(b.full)),
    Metric("commits_total", "counter", "Transactions of records, each fsynced.",
           lambda b: b.commits),
    Metric("commit_seconds", "histogram", "How long those transactions took.",
           lambda b: b.commit_s),
)  # fmt: skip


_OTHER_METRICS: Final = (
    ("source_refused_total", "source, reason", "counter",
     "Rejected requests, connections and messages."),
    ("sink_state", "sink, state", "gauge", "1 for the state the sink is in."),
    ("config_last_reload_successful", "", "gauge",
     "1 if the last reload, or the start, applied the configuration."),
    ("config_last_reload_success_timestamp_seconds", "", "gauge",
     "When a configuration was last applied."),
    ("build_info", "version, python", "gauge", "The version that runs."),
)  # fmt: skip
"""Name, labels, type and help of the metrics that are not one value per row."""

_DOCUMENT_HEAD: Final = """\
# Metrics

Generated from the code by `python -m siemrelay.telemetry.metrics > systemd/metrics.md`.

| metric | labels | type | meaning |
|---|---|---|---|"""


def document() -> str:
    """`systemd/metrics.md`: every metric with its labels, type and meaning."""
    rows = [("source", "source", m) for m in SOURCE_METRICS]
    rows += [("sink", "sink", m) for m in SINK_METRICS]
    rows += [("buffer", "", m) for m in BUFFER_METRICS]
    lines = [
        f"| `siemrelay_{part}_{m.name}` | {label} | {m.kind} | {m.help} |"
        for part, label, m in rows
    ]
    lines += [f"| `siemrelay_{name}` | {labels} | {kind} | {text} |"
              for name, labels, kind, text in _OTHER_METRICS]  # fmt: skip
    return "\n".join([_DOCUMENT_HEAD, *lines, ""])


def render(stats: Stats) -> bytes:
    """All metrics in Prometheus' text format."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(stats))
    return generate_latest(registry)


class _Collector:
    def __init__(self, stats: Stats) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        stats = self._stats
        sources: list[tuple[str, SourceStats]] = list(stats.sources.items())
        sinks: list[tuple[str, SinkStats]] = list(stats.sinks.items())
        for metric in SOURCE_METRICS:
            yield _family(f"siemrelay_source_{metric.name}", metric, ["source"], sources)
        refused = CounterMetricFamily(
            "siemrelay_source_refused_total", "Rejected requests, connections and messages.",
            labels=["source", "reason"],
        )  # fmt: skip
        for name, source in sources:
            for reason, count in source.refused.items():
                refused.add_metric([name, reason], count)
        yield refused
        for metric in SINK_METRICS:
            yield _family(f"siemrelay_sink_{metric.name}", metric, ["sink"], sinks)
        state = GaugeMetricFamily(
            "siemrelay_sink_state", "1 for the state the sink is in.", labels=["sink", "state"]
        )
        for name, sink in sinks:
            for known in STATES:
                state.add_metric([name, known], int(sink.state == known))
        yield state
        for metric in BUFFER_METRICS:
            yield _family(f"siemrelay_buffer_{metric.name}", metric, [], [("", stats.buffer)])
        yield GaugeMetricFamily(
            "siemrelay_config_last_reload_successful",
            "1 if the last reload, or the start, applied the configuration.",
            int(stats.reload.successful),
        )
        yield GaugeMetricFamily(
            "siemrelay_config_last_reload_success_timestamp_seconds",
            "When a configuration was last applied.", stats.reload.succeeded_at,
        )  # fmt: skip
        build = GaugeMetricFamily(
            "siemrelay_build_info", "The version that runs.", labels=["version", "python"]
        )
        build.add_metric([__version__, platform.python_version()], 1)
        yield build


def _family(name: str, metric: Metric, labels: list[str], rows: list[tuple[str, Any]]) -> Any:
    from prometheus_client import core

    if metric.kind == "histogram":
        family: Any = core.HistogramMetricFamily(name, metric.help, labels=labels)
        for label, thing in rows:
            buckets, sum_s = _buckets(metric.read(thing))
            family.add_metric([label] if labels else [], buckets, sum_s)
        return family
    kind = core.CounterMetricFamily if metric.kind == "counter" else core.GaugeMetricFamily
    family = kind(name, metric.help, labels=labels)
    for label, thing in rows:
        if (value := metric.read(thing)) is not None:
            family.add_metric([label] if labels else [], value)
    return family


def _buckets(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    total, pairs = 0, []
    for bound, count in zip((*histogram.bounds_s, float("inf")), histogram.counts, strict=True):
        total += count
        pairs.append(("+Inf" if bound == float("inf") else str(bound), float(total)))
    return pairs, histogram.sum_s


if __name__ == "__main__":
    print(document(), end="")
