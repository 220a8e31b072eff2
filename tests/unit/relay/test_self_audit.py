"""Losses become events of the relay, at most one a minute for each sink, and all are in them."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from siemrelay.core.event_types import SINK_PAUSED
from siemrelay.relay.self_audit import SelfAudit, spool_event
from siemrelay.telemetry.stats import SinkStats, SourceStats, Stats


class Stored:
    """Stands for `OwnEvents`; while `full` it waits, as a full buffer does."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.room = trio.Event()
        self.room.set()

    async def store(self, record: bytes) -> None:
        await self.room.wait()
        self.events.append(json.loads(record))


def audit_of(stats: Stats, stored: Stored, path: Path, *, enabled: bool = True) -> SelfAudit:
    folder = path / "self-audit"
    if not folder.exists():
        folder.mkdir()
        # Nothing is in it: no thread looks, for which the virtual clock would not wait.
        os.utime(folder, (0, 0))
    return SelfAudit(stored.store, stats, path, "siemrelay", lambda: enabled)


async def test_what_is_noted_is_stored_at_once_and_what_is_noted_meanwhile_after_it(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    stored = Stored()
    audit = audit_of(Stats(), stored, tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(audit.run)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        for message in ("first", "second"):
            audit.note("Part Changed", message)
            audit.note("Part Changed", f"{message}, too")
            await wait_all_tasks_blocked()
        assert trio.current_time() == began
        nursery.cancel_scope.cancel()
    messages = [each["message"] for each in stored.events]
    assert messages == ["first", "first, too", "second", "second, too"]


async def test_what_samples_leave_out_is_an_event_every_five_minutes_and_at_the_stop(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    stats, stored = Stats(), Stored()
    sink = stats.sinks["siem"] = SinkStats("siem")
    audit = audit_of(stats, stored, tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(audit.run)
        for _ in range(700):
            sink.sampled["User Logged In"] = sink.sampled.get("User Logged In", 0) + 1
            await trio.sleep(1)
        nursery.cancel_scope.cancel()
    sink.sampled["User Logged Out"] = 3
    await audit.stopped()
    events = [each for each in stored.events if each["type"] == "Events Sampled"]
    assert 2 <= len(events) <= 4
    assert sum(each["left_out"]["User Logged In"] for each in events) == 700
    assert events[-1]["left_out"]["User Logged Out"] == 3
    assert [each["records"] for each in events] == [sum(e["left_out"].values()) for e in events]
    assert {each["target"]["name"] for each in events} == {"siem"}


async def test_what_limits_leave_out_is_an_event_at_once_and_every_minute_while_it_goes_on(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    stats, stored = Stats(), Stored()
    source = stats.sources["app"] = SourceStats("app")
    audit = audit_of(stats, stored, tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(audit.run)
        await trio.sleep(30.5)
        for number in range(150):
            source.limited["User Logged In"] = number + 1
            await trio.sleep(1)
        stats.sources = {"new name": source}
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    source.limited["User Logged Out"] = 3
    await audit.stopped()
    events = [each for each in stored.events if each["type"] == "Events Limited"]
    assert [each["left_out"] for each in events] == [
        {"User Logged In": 1}, {"User Logged In": 60}, {"User Logged In": 60},
        {"User Logged In": 29}, {"User Logged Out": 3},
    ]  # fmt: skip
    assert [each["target"]["name"] for each in events] == ["app"] * 3 + ["new name"] * 2
    assert {each["target"]["type"] for each in events} == {"source"}
    assert all(each["from"] <= each["to"] for each in events)
    assert all(a["to"] <= b["from"] for a, b in pairwise(events))


async def test_what_samples_leave_out_while_sinks_drain_is_in_the_log_with_and_without_events(
    tmp_path: Path,
) -> None:
    for enabled in (True, False):
        stats, stored = Stats(), Stored()
        sink = stats.sinks["siem"] = SinkStats("siem")
        audit = audit_of(stats, stored, tmp_path, enabled=enabled)
        sink.sampled["User Logged In"] = 1
        with capture_logs() as log:
            await audit.stopped()
            sink.sampled["User Logged In"] = 5
            audit.ended()
        assert [line["left_out"] for line in log] == [{"User Logged In": 1}, {"User Logged In": 4}]


async def test_dropped_records_are_an_event_a_minute_and_none_is_left_out(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    stats, stored = Stats(), Stored()
    sink = stats.sinks["siem"] = SinkStats("siem")
    sink.counts.dropped = 50  # before this start
    audit = audit_of(stats, stored, tmp_path)
    audit.started()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(audit.run)
        for _ in range(150):
            sink.counts.dropped += 10
            await trio.sleep(1)
        nursery.cancel_scope.cancel()
    await audit.stopped()
    drops = [each for each in stored.events if each["type"] == "Records Dropped"]
    assert 1 <= len(drops) <= 4
    assert sum(each["records"] for each in drops) == 1500
    assert {each["target"]["name"] for each in drops} == {"siem"}
    assert (stored.events[0]["type"], stored.events[-1]["type"]) == (
        "Relay Started",
        "Relay Stopped",
    )


async def test_notes_are_bounded_while_the_buffer_is_full(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    stored = Stored()
    stored.room = trio.Event()
    audit = audit_of(Stats(), stored, tmp_path)
    with capture_logs() as logs:
        for number in range(1003):
            audit.note(SINK_PAUSED, f"note {number}", sink="siem")
    assert len([line for line in logs if "too many wait" in line["event"]]) == 3
    stored.room.set()
    await audit.stopped()
    assert [each["message"] for each in stored.events] == [f"note {n}" for n in range(1000)]


async def test_a_folder_that_a_command_left_is_emptied_also_when_the_audit_is_off(
    tmp_path: Path,
) -> None:
    for enabled in (True, False):
        stored = Stored()
        spool_event(tmp_path, SINK_PAUSED, "ada", "siem", "a\nb", enabled=True, records=3)
        audit = audit_of(Stats(), stored, tmp_path, enabled=enabled)
        await audit.take_spooled()
        assert list((tmp_path / "self-audit").iterdir()) == []
        assert [each["records"] for each in stored.events] == [3] * enabled


def test_a_command_where_no_relay_has_been_leaves_nothing(tmp_path: Path) -> None:
    spool_event(tmp_path / "none", SINK_PAUSED, "ada", "siem", "x", enabled=True)
    spool_event(tmp_path, SINK_PAUSED, "ada", "siem", "x", enabled=False)
    assert list(tmp_path.iterdir()) == []
