"""What needs attention is found in a report, most urgent first, with what to do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from siemrelay.telemetry.attention import attention
from siemrelay.telemetry.log import Redactor
from siemrelay.telemetry.stats import (
    RemovedSink,
    SealStatus,
    SinkStats,
    SourceStats,
    Stats,
    TimestampStatus,
)
from siemrelay.telemetry.status import RelayReport, StatusReporter


def report(change: Callable[[Stats], object]) -> RelayReport:
    stats = Stats(ready=True)
    stats.sources["alm"] = SourceStats("alm", files=1)
    stats.sinks["siem"] = SinkStats("siem", "up", "")
    change(stats)
    return StatusReporter(stats, Redactor([])).status(0.0)


def sink(stats: Stats, **values: object) -> None:
    for name, value in values.items():
        setattr(stats.sinks["siem"], name, value)


@pytest.mark.parametrize(
    ("change", "tone", "title", "advice"),
    [
        (lambda s: sink(s, state="holding", reason="HTTP 401", backlog=7), "bad",
         "siem is holding for", "`siemrelay reload`"),
        (lambda s: sink(s, state="waiting", retries=1), "warning", "siem is waiting for",
         "`siemrelay test siem`"),
        (lambda s: sink(s, state="failed", reason="internal error: x"), "bad",
         "siem is failed for", ""),
        (lambda s: sink(s, state="paused", reason="paused by ada"), "warning",
         "siem is paused for", ""),
        (lambda s: sink(s, credentials_fault="no key"), "bad", "Sink siem goes on with", ""),
        (lambda s: sink(s, certificate_expires_at=1.0), "warning",
         "The certificate that siem shows has expired", "renewed"),
        (lambda s: sink(s, seal=SealStatus("o", 9, 5, 1.0, 60.0)), "warning",
         "The last seal of siem is late", "The log"),
        (lambda s: sink(s, timestamps=TimestampStatus(None, "HTTP 503")), "warning",
         "The seals of siem get no time stamps", "`seal: {timestamp: …}`"),
        (lambda s: setattr(s.sources["alm"], "files", 0), "warning", "Source alm: no file", ""),
        (lambda s: setattr(s.sources["alm"], "failed_at", 1.0), "bad", "Source alm failed", ""),
        (lambda s: setattr(s.sources["alm"], "credentials_fault", "no key"), "bad",
         "Source alm goes on with", ""),
        (lambda s: setattr(s.buffer, "full", True), "bad", "The buffer is full", "max_size"),
        (lambda s: setattr(s.reload, "error", "f:1:1: x"), "bad", "The last reload was refused",
         "`siemrelay check`"),
        (lambda s: s.buffer.dead_letters.update(siem=1), "warning", "siem refused 1 event",
         "`siemrelay buffer dead-letters siem`"),
        (lambda s: s.buffer.removed.update(old=RemovedSink(9, 4e9)), "warning",
         "old is no longer configured, and 9 records wait", "`renamed_from: old`"),
        (lambda s: setattr(s, "ready", False), "warning", "Starting", ""),
    ],
)  # fmt: skip
def test_each_trouble_is_found_with_its_advice(
    change: Callable[[Stats], object], tone: str, title: str, advice: str
) -> None:
    (found,) = attention(report(change))
    assert found.tone == tone
    assert found.title.startswith(title)
    assert advice in found.advice


def test_nothing_needs_attention_while_a_sink_connects_for_the_first_time_or_is_disabled() -> None:
    for state in ("waiting", "disabled"):
        assert attention(report(lambda s, state=state: sink(s, state=state))) == []  # type: ignore[misc]  # mypy cannot infer a lambda with a default


def test_what_stands_still_comes_before_the_warnings() -> None:
    def change(stats: Stats) -> None:
        stats.sources["alm"].files = 0
        stats.buffer.dead_letters = {"siem": 3}
        sink(stats, state="holding", reason="HTTP 401")

    assert [each.tone for each in attention(report(change))] == ["bad", "warning", "warning"]
