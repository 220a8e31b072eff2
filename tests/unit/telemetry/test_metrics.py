"""What a scrape says, read back by Prometheus' own parser."""

from __future__ import annotations

import math
import re
import time
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from siemrelay import __version__
from siemrelay.telemetry.metrics import document, render, sampled
from siemrelay.telemetry.stats import (
    COMMIT_BUCKETS_S,
    DELIVERY_BUCKETS_S,
    STATES,
    Histogram,
    SinkCounts,
    SinkStats,
    SourceStats,
    Stats,
)

AWKWARD = 'quo"te \\ back\nline é'


def scraped(stats: Stats) -> dict[str, Any]:
    families = text_string_to_metric_families(render(sampled(stats)).decode())
    return {family.name: family for family in families}


def value(stats: Stats, name: str, **labels: str) -> float:
    found = [
        sample.value
        for family in scraped(stats).values()
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    assert len(found) == 1, (name, found)
    number: float = found[0]
    return number


@pytest.fixture
def stats() -> Stats:
    made = Stats(
        sources={"app": SourceStats("app", records=7, bytes=900, lag_bytes=12)},
        sinks={
            "siem": SinkStats(
                "siem",
                state="holding",
                counts=SinkCounts(delivered=5, filtered=2),
                truncated_messages=1,
            )
        },
    )
    made.buffer.committed(0.002, 4096)
    return made


def test_the_documented_metrics_are_those_that_are_rendered(stats: Stats) -> None:
    rendered = re.findall(r"^# TYPE (\S+) ", render(sampled(stats)).decode(), re.MULTILINE)
    documented = re.findall(r"(?m)^\| `(\w+)`", document())
    assert sorted(rendered) == sorted(documented)
    assert len(set(rendered)) == len(rendered)


def test_names_obey_the_rules_of_prometheus(stats: Stats) -> None:
    kinds = re.findall(r"^# TYPE (\S+) (\S+)$", render(sampled(stats)).decode(), re.MULTILINE)
    for name, kind in kinds:
        assert re.fullmatch(r"(siemrelay|process)(_[a-z][a-z0-9]*)+", name)
        assert name.endswith("_total") == (kind == "counter"), name
        assert not re.search(r"_(ms|milliseconds|minutes|kb|megabytes|mib)(_|$)", name)
        assert kind != "histogram" or name.endswith("_seconds")


def test_every_metric_has_its_help_and_its_label(stats: Stats) -> None:
    for family in scraped(stats).values():
        assert family.documentation
        for sample in family.samples:
            part = sample.name.split("_")[1]
            expected = {"source": {"source"}, "sink": {"sink"}}.get(part, set())
            assert expected <= set(sample.labels), sample


def test_counters_and_gauges_have_the_values_of_the_parts(stats: Stats) -> None:
    assert value(stats, "siemrelay_source_records_total", source="app") == 7
    assert value(stats, "siemrelay_source_lag_bytes", source="app") == 12
    assert value(stats, "siemrelay_sink_delivered_total", sink="siem") == 5
    assert value(stats, "siemrelay_sink_truncated_messages_total", sink="siem") == 1
    assert value(stats, "siemrelay_buffer_size_bytes") == 4096
    assert value(stats, "siemrelay_buffer_full") == 0


def test_the_process_is_measured_as_prometheus_programs_are(stats: Stats) -> None:
    stats.started_at = 1.7e9
    assert value(stats, "process_start_time_seconds") == 1.7e9
    assert value(stats, "process_cpu_seconds_total") > 0
    resident = value(stats, "process_resident_memory_bytes")
    assert 1e6 < resident < value(stats, "process_virtual_memory_bytes")
    assert 3 <= value(stats, "process_open_fds") < value(stats, "process_max_fds")


def test_exactly_one_state_of_a_sink_is_one(stats: Stats) -> None:
    found = {
        state: value(stats, "siemrelay_sink_state", sink="siem", state=state) for state in STATES
    }
    assert found == {state: float(state == "holding") for state in STATES}


def test_ages_are_counted_from_now_and_zero_when_there_is_nothing(stats: Stats) -> None:
    assert value(stats, "siemrelay_sink_oldest_undelivered_age_seconds", sink="siem") == 0
    stats.sinks["siem"].oldest_undelivered_at = time.time() - 100
    stats.buffer.oldest_received_at = time.time() + 100  # a clock that was set back
    age_s = value(stats, "siemrelay_sink_oldest_undelivered_age_seconds", sink="siem")
    assert 100 <= age_s < 110
    assert value(stats, "siemrelay_buffer_oldest_age_seconds") == 0


def test_buckets_are_cumulative_and_end_with_everything(stats: Stats) -> None:
    delivery = stats.sinks["siem"].delivery_s
    delivery.observe(0.001)  # on a bound: belongs to it
    delivery.observe(0.3, 4)
    delivery.observe(1e9)
    family = scraped(stats)["siemrelay_sink_delivery_seconds"]
    buckets = [(float(s.labels["le"]), s.value) for s in family.samples if "le" in s.labels]
    assert [bound for bound, _ in buckets] == [*DELIVERY_BUCKETS_S, math.inf]
    counts = [count for _, count in buckets]
    assert counts == sorted(counts)
    assert dict(buckets)[0.001] == 1
    assert dict(buckets)[0.25] == 1
    assert dict(buckets)[0.5] == 5
    assert counts[-1] == 6 == value(stats, "siemrelay_sink_delivery_seconds_count", sink="siem")
    assert value(stats, "siemrelay_sink_delivery_seconds_sum", sink="siem") == pytest.approx(
        1e9 + 1.201
    )


def test_bucket_bounds_rise() -> None:
    for bounds in (DELIVERY_BUCKETS_S, COMMIT_BUCKETS_S):
        assert list(bounds) == sorted(set(bounds))
    assert len(Histogram(COMMIT_BUCKETS_S).counts) == len(COMMIT_BUCKETS_S) + 1


def test_names_with_any_characters_are_escaped() -> None:
    stats = Stats(sinks={AWKWARD: SinkStats(AWKWARD, counts=SinkCounts(delivered=3))})
    assert value(stats, "siemrelay_sink_delivered_total", sink=AWKWARD) == 3


def test_the_metrics_name_the_version_that_runs(stats: Stats) -> None:
    (sample,) = scraped(stats)["siemrelay_build_info"].samples
    assert sample.labels["version"] == __version__


def test_a_relay_without_parts_renders() -> None:
    assert b"siemrelay_buffer_commits_total 0.0" in render(sampled(Stats()))
