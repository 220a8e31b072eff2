"""What counts as alive and as ready."""

from __future__ import annotations

from typing import Any

import pytest
from annotated_types import Le

from siemrelay import registry
from siemrelay.telemetry.health import _PART_STALE_S, stuck, unready, unready_source
from siemrelay.telemetry.stats import SinkStats, SourceStats, Stats

NOW_S = 10_000.0
LONG_AGO_S = NOW_S - 1000


def healthy() -> Stats:
    return Stats(
        loop_at=NOW_S - 1,
        ready=True,
        sources={"app": SourceStats("app", progress_at=NOW_S - 5)},
        sinks={"siem": SinkStats("siem", state="up", backlog=9, progress_at=NOW_S - 5)},
    )


def test_a_relay_whose_parts_make_progress_is_alive_and_ready() -> None:
    assert stuck(healthy(), NOW_S) == []
    assert unready(healthy()) == []


def test_a_loop_that_does_not_run_is_stuck() -> None:
    stats = healthy()
    stats.loop_at = NOW_S - 21
    assert stuck(stats, NOW_S) == ["the main loop has not run for 21 s"]


def test_a_silent_source_is_stuck_unless_it_waits_for_room() -> None:
    stats = healthy()
    stats.sources["app"].progress_at = LONG_AGO_S
    assert stuck(stats, NOW_S) == ["source app shows no sign of life"]
    stats.buffer.full = True
    assert stuck(stats, NOW_S) == []


def test_a_source_that_has_failed_is_not_stuck_and_not_ready_until_it_works_again() -> None:
    """It is restarted alone; a restart of the relay would harm the others."""
    stats = healthy()
    source = stats.sources["app"]
    source.progress_at, source.failed_at, source.last_error = LONG_AGO_S, LONG_AGO_S, "port in use"
    assert stuck(stats, NOW_S) == []
    assert unready(stats) == unready_source(source) == ["source app failed: port in use"]
    source.progress_at = NOW_S
    assert unready(stats) == []


def test_a_sink_that_is_up_and_delivers_nothing_of_its_backlog_is_stuck() -> None:
    stats = healthy()
    stats.sinks["siem"].progress_at = LONG_AGO_S
    assert stuck(stats, NOW_S) == ["sink siem is up but delivers nothing of its backlog"]
    stats.sinks["siem"].backlog = 0
    assert stuck(stats, NOW_S) == []


@pytest.mark.parametrize("state", ["waiting", "holding", "paused", "disabled"])
def test_a_sink_whose_peer_is_down_is_no_fault_of_the_relay(state: str) -> None:
    stats = healthy()
    stats.sinks["siem"].progress_at = LONG_AGO_S
    stats.sinks["siem"].state = state
    assert stuck(stats, NOW_S) == []


def test_a_relay_that_starts_stops_or_is_full_is_not_ready() -> None:
    stats = healthy()
    stats.buffer.full = True
    assert unready(stats) == ["the buffer is full: intake waits"]
    stats.ready = False
    assert unready(stats) == ["starting"]
    stats.stopping = True
    assert unready(stats) == ["stopping"]


@pytest.mark.parametrize("kinds", [registry.PROTOCOLS, registry.SOURCES], ids=["sinks", "sources"])
def test_no_part_waits_for_its_peer_until_it_counts_as_stuck(kinds: dict[str, Any]) -> None:
    fields = {name: kind.options.model_fields.get("timeout") for name, kind in kinds.items()}
    bounded = {
        name: any(isinstance(limit, Le) and limit.le == 300 for limit in info.metadata)
        for name, info in fields.items() if info is not None
    }  # fmt: skip
    assert bounded
    assert all(bounded.values()), bounded
    assert _PART_STALE_S > 400
