"""Every metric in one table, rendered for Prometheus at a scrape.

The parts count in plain numbers (`stats`), which a scrape reads at one moment. Prometheus' client
library writes them: in a thread, since that takes 20 ms with a hundred sinks. The first scrape
imports it, so a start does not wait for it.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

from siemrelay import __version__
from siemrelay.telemetry import process
from siemrelay.telemetry.stats import STATES, Histogram, Stats

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


Values = Iterable[tuple[tuple[str, ...], Any]]
"""The values of a metric's labels, with the value that belongs to them."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `values` reads its samples; a sample with the value None is left out.

    `prefix` is the program's, or the one that every program has.
    """

    name: str
    labels: tuple[str, ...]
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    values: Callable[[Stats], Values]
    prefix: str = "siemrelay_"


_Row = tuple[str, Literal["counter", "gauge", "histogram"], str, Callable[[Any], Any]]
"""A metric with one value per source, sink or buffer: name, type, help, and how to read it."""


def _of_each(parts: str, read: Callable[[Any], Any], stats: Stats) -> Values:
    return (((name,), read(part)) for name, part in getattr(stats, parts).items())


def _of_buffer(read: Callable[[Any], Any], stats: Stats) -> Values:
    return [((), read(stats.buffer))]


def _age(moment_s: float | None) -> float:
    return max(time.time() - moment_s, 0.0) if moment_s else 0.0


_CREDENTIALS: Final = "1 while changed TLS or secret files cannot be used; the last good ones are."

_SOURCE_ROWS: Final[tuple[_Row, ...]] = (
    ("records_total", "counter", "Records stored.", lambda s: s.records),
    ("bytes_total", "counter", "Bytes of records stored.", lambda s: s.bytes),
    ("last_record_timestamp_seconds", "gauge", "When the last record came in.",
     lambda s: s.last_record_at),
    ("lag_bytes", "gauge", "Bytes known to be waiting unread.", lambda s: s.lag_bytes),
    ("oversize_total", "counter", "Records over max_record_size, kept whole.",
     lambda s: s.oversize),
    ("filtered_total", "counter",
     "Records that the source's `events`, `where` and `limit` left out, not stored.",
     lambda s: s.filtered),
    ("redacted_total", "counter", "Records in which something was redacted before they were "
     "stored.", lambda s: s.redacted),
    ("restarts_total", "counter", "Restarts after a failure.", lambda s: s.restarts),
    ("failed", "gauge", "1 while it cannot run; it is started again and again.",
     lambda s: int(s.failed)),
    ("credentials_unusable", "gauge", _CREDENTIALS, lambda s: int(bool(s.credentials_fault))),
    ("upstream_dropped_total", "counter",
     "Records dropped before they reached the relay, as the kernel or the queue reports.",
     lambda s: s.upstream_dropped),
    ("lost_bytes_total", "counter", "Bytes of files that left before they were read.",
     lambda s: s.lost_bytes),
    ("skipped_nul_bytes_total", "counter",
     "NULs of holes in files, which hold no record and were skipped.", lambda s: s.skipped_nuls),
    ("files", "gauge", "Files that are followed now.", lambda s: s.files or 0),
    ("unreadable_files", "gauge", "Files and directories that cannot be read now.",
     lambda s: s.unreadable_files),
    ("unparsed_ratio", "gauge", "Share of the records looked at lately (20 a second at most) that "
     "its decoder cannot parse.", lambda s: s.unparsed_share),
    ("connections", "gauge", "Connections open.", lambda s: s.connections),
)  # fmt: skip

_SINK_ROWS: Final[tuple[_Row, ...]] = (
    ("delivered_total", "counter", "Events confirmed by the receiver.",
     lambda s: s.delivered),
    ("filtered_total", "counter", "Events that `sources`, `events`, `where` and `sample` left out.",
     lambda s: s.counts.filtered),
    ("dead_lettered_total", "counter", "Events the receiver refused, kept as dead letters.",
     lambda s: s.counts.refused),
    ("duplicates_total", "counter",
     "Events that the receiver already held when they were first sent.",
     lambda s: s.counts.duplicates),
    ("dropped_total", "counter", "Records dropped because the buffer was full.",
     lambda s: s.counts.dropped),
    ("missing_total", "counter", "Records that were stored and are gone from the disk.",
     lambda s: s.counts.lost),
    ("stored_total", "counter", "Records stored since the sink was added.",
     lambda s: s.stored),
    ("retried_total", "counter", "Dead letters that a retry delivered.",
     lambda s: s.counts.retried),
    ("replayed_total", "counter", "Records that a replay delivered again.",
     lambda s: s.counts.replayed),
    ("retries_total", "counter", "Attempts that failed.", lambda s: s.retries),
    ("unparsed_total", "counter", "Records that could not be parsed, of those it has dealt with.",
     lambda s: s.unparsed),
    ("truncated_messages_total", "counter", "Messages truncated to max_message_size.",
     lambda s: s.truncated_messages),
    ("redacted_total", "counter", "Events in which something was redacted.",
     lambda s: s.redacted),
    ("invalid_utf8_total", "counter",
     "Events with bytes that are not UTF-8, which were replaced.", lambda s: s.invalid_utf8),
    ("sent_bytes_total", "counter", "Bytes of messages confirmed.", lambda s: s.sent_bytes),
    ("backlog_records", "gauge", "Records neither delivered, filtered, dropped nor refused.",
     lambda s: s.backlog),
    ("holds_buffer", "gauge", "1 while the buffer is full and waits for this sink.",
     lambda s: int(s.holds_buffer)),
    ("oldest_undelivered_age_seconds", "gauge", "Age of the oldest record not settled.",
     lambda s: _age(s.oldest_undelivered_at)),
    ("last_success_timestamp_seconds", "gauge", "When the receiver last confirmed.",
     lambda s: s.counts.last_success_at),
    ("certificate_expiry_timestamp_seconds", "gauge",
     "When the peer's certificate ends; absent without one.",
     lambda s: s.certificate_expires_at),
    ("credentials_unusable", "gauge", _CREDENTIALS, lambda s: int(bool(s.credentials_fault))),
    ("seal_timestamp_seconds", "gauge",
     "When the last confirmed seal was made; absent without `seal`.",
     lambda s: s.seal and s.seal.sealed_at),
    ("seal_interval_seconds", "gauge", "How often a seal is sent; absent without `seal`.",
     lambda s: s.seal and s.seal.every_s),
    ("tsa_timestamp_seconds", "gauge", "When an authority last stamped a seal; absent without one.",
     lambda s: s.timestamps and s.timestamps.at),
    ("tsa_failing", "gauge",
     "1 while the authority gives no time stamp; absent without `seal: {timestamp: …}`.",
     lambda s: s.timestamps and int(bool(s.timestamps.fault))),
    ("delivery_seconds", "histogram",
     "From received to confirmed; a stream is asked up to 0.1 s late.", lambda s: s.delivery_s),
)  # fmt: skip

_BUFFER_ROWS: Final[tuple[_Row, ...]] = (
    ("size_bytes", "gauge", "Disk space of the records kept.", lambda b: b.size_bytes),
    ("max_size_bytes", "gauge", "The most disk space that records may use (`max_size`).",
     lambda b: b.max_size_bytes),
    ("oldest_age_seconds", "gauge", "Age of the oldest record kept.",
     lambda b: _age(b.oldest_received_at)),
    ("full", "gauge", "1 while intake waits for room.", lambda b: int(b.full)),
    ("discarded_total", "counter",
     "Records of removed sinks that were dropped with their places, undelivered.",
     lambda b: b.discarded),
    ("commits_total", "counter", "Transactions of records, each fsynced.",
     lambda b: b.commits),
    ("commit_seconds", "histogram", "How long those transactions took.",
     lambda b: b.commit_s),
)  # fmt: skip

_PROCESS_ROWS: Final[tuple[_Row, ...]] = (
    ("start_time_seconds", "gauge", "When the relay started.", lambda stats: stats.started_at),
    ("cpu_seconds_total", "counter", "Processor time used, by workers too.",
     lambda stats: process.cpu_s(stats.workers.pids)),
    ("resident_memory_bytes", "gauge", "Memory in use, by workers too.",
     lambda stats: process.resident_bytes(stats.workers.pids)),
    ("virtual_memory_bytes", "gauge", "Address space.", lambda stats: process.virtual_bytes()),
    ("open_fds", "gauge", "Open file descriptors.", lambda stats: process.open_files()),
    ("max_fds", "gauge", "File descriptors that it may open.",
     lambda stats: process.most_open_files()),
)  # fmt: skip


def _of_process(read: Callable[[Any], Any], stats: Stats) -> Values:
    return [((), read(stats))]


METRICS: Final = (
    *(Metric(f"source_{name}", ("source",), kind, text, partial(_of_each, "sources", read))
      for name, kind, text, read in _SOURCE_ROWS),
    *(Metric(f"sink_{name}", ("sink",), kind, text, partial(_of_each, "sinks", read))
      for name, kind, text, read in _SINK_ROWS),
    *(Metric(f"buffer_{name}", (), kind, text, partial(_of_buffer, read))
      for name, kind, text, read in _BUFFER_ROWS),
    Metric("sink_sampled_total", ("sink", "type"), "counter",
           "Events that the sink's `sample` left out, by type; they count as filtered, too.",
           lambda stats: (((name, kind), count) for name, sink in stats.sinks.items()
                          for kind, count in sink.sampled.items())),
    Metric("source_limited_total", ("source", "type"), "counter",
           "Events that the source's `limit` left out, by type; they count as filtered, too.",
           lambda stats: (((name, kind), count) for name, source in stats.sources.items()
                          for kind, count in source.limited.items())),
    Metric("source_refused_total", ("source", "reason"), "counter",
           "Rejected requests, connections and messages.",
           lambda stats: (((name, reason), count) for name, source in stats.sources.items()
                          for reason, count in source.refused.items())),
    Metric("sink_state", ("sink", "state"), "gauge", "1 for the state the sink is in.",
           lambda stats: (((name, state), int(sink.state == state))
                          for name, sink in stats.sinks.items() for state in STATES)),
    Metric("removed_sink_backlog_records", ("sink",), "gauge",
           "Records kept for a sink that is no longer configured.",
           lambda stats: (((name,), place.backlog)
                          for name, place in stats.buffer.removed.items())),
    Metric("config_last_reload_successful", (), "gauge",
           "1 if the last reload, or the start, applied the configuration.",
           lambda stats: [((), int(stats.reload.successful))]),
    Metric("config_last_reload_success_timestamp_seconds", (), "gauge",
           "When a configuration was last applied.",
           lambda stats: [((), stats.reload.succeeded_at)]),
    Metric("workers", (), "gauge", "Processes that format events now.",
           lambda stats: [((), len(stats.workers.pids))]),
    Metric("worker_batches_total", (), "counter", "Batches that workers formatted.",
           lambda stats: [((), stats.workers.batches)]),
    Metric("worker_failures_total", (), "counter",
           "Workers that failed; the relay formatted their batches again.",
           lambda stats: [((), stats.workers.failures)]),
    Metric("build_info", ("version", "python"), "gauge", "The version that runs.",
           lambda stats: [((__version__, platform.python_version()), 1)]),
    *(Metric(name, (), kind, text, partial(_of_process, read), "process_")
      for name, kind, text, read in _PROCESS_ROWS),
)  # fmt: skip

_DOCUMENT_HEAD: Final = """\
# Metrics

Generated from the code by `python -m siemrelay.telemetry.metrics > systemd/metrics.md`.

| metric | labels | type | meaning |
|---|---|---|---|"""


def document() -> str:
    """`systemd/metrics.md`: every metric with its labels, type and meaning."""
    lines = [
        f"| `{m.prefix}{m.name}` | {', '.join(m.labels)} | {m.kind} | {m.help} |" for m in METRICS
    ]
    return "\n".join([_DOCUMENT_HEAD, *lines, ""])


Samples = list[tuple[tuple[str, ...], Any]]
"""The values of a metric by the values of its labels; of a histogram its buckets and its sum."""


def sampled(stats: Stats) -> list[Samples]:
    """The present values of all metrics, in their order."""
    return [
        [
            (labels, _buckets(value) if metric.kind == "histogram" else (value,))
            for labels, value in metric.values(stats)
            if value is not None
        ]
        for metric in METRICS
    ]


def render(samples: list[Samples]) -> bytes:
    """All metrics in Prometheus' text format. Takes long: call it in a thread."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(samples))
    return generate_latest(registry)


class _Collector:
    def __init__(self, samples: list[Samples]) -> None:
        self._samples = samples

    def collect(self) -> Iterator[Any]:
        return map(_family, METRICS, self._samples)


def _family(metric: Metric, samples: Samples) -> Any:
    from prometheus_client import core

    kind: Any = {
        "counter": core.CounterMetricFamily, "gauge": core.GaugeMetricFamily,
        "histogram": core.HistogramMetricFamily,
    }[metric.kind]  # fmt: skip
    family = kind(f"{metric.prefix}{metric.name}", metric.help, labels=metric.labels)
    for labels, values in samples:
        family.add_metric(labels, *values)
    return family


def _buckets(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    total, pairs = 0, []
    for bound, count in zip((*histogram.bounds_s, float("inf")), histogram.counts, strict=True):
        total += count
        pairs.append(("+Inf" if bound == float("inf") else str(bound), float(total)))
    return pairs, histogram.sum_s


if __name__ == "__main__":
    print(document(), end="")
