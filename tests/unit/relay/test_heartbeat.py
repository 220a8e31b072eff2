"""The heartbeat: gauges while a reload removes sinks, and with many sinks that are down."""

from __future__ import annotations

import time
from collections.abc import Set
from pathlib import Path

import pytest

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.buffer.sink_cursor import SinkPolicy
from siemrelay.core.event import Batch
from siemrelay.relay.heartbeat import Heartbeat
from siemrelay.relay.systemd import Notifier
from siemrelay.telemetry.log import Redactor
from siemrelay.telemetry.stats import SinkStats, Stats
from siemrelay.telemetry.status import StatusReporter
from tests.support.buffers import advance


async def test_a_sink_without_a_cursor_is_passed_over(tmp_path: Path) -> None:
    stats = Stats()
    with DiskBuffer(tmp_path, max_size_bytes=1 << 30, keep_s=60.0, stats=stats.buffer) as buffer:
        buffer.set_sinks({"kept": SinkPolicy()})
        stats.sinks = {name: SinkStats(name) for name in ("going", "kept")}
        buffer.removed = {"dropped": 1}
        heartbeat = Heartbeat(buffer, stats, StatusReporter(stats, Redactor([])), Notifier())
        heartbeat.refresh_backlog()
        await heartbeat.refresh()
        assert stats.buffer.removed == {}


async def test_a_scrape_reads_the_age_of_a_record_once_for_all_sinks_that_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stats, read = Stats(), list[int]()
    with DiskBuffer(tmp_path, max_size_bytes=1 << 30, keep_s=60.0, stats=stats.buffer) as buffer:
        names = [f"dead-{n}" for n in range(99)]
        buffer.set_sinks({name: SinkPolicy() for name in names})
        stats.sinks = {name: SinkStats(name) for name in names}
        heartbeat = Heartbeat(buffer, stats, StatusReporter(stats, Redactor([])), Notifier())
        first = buffer.end
        await buffer.append([Batch(first, 2, "app", 1.7e9, b"a\nb\n")], {})
        received_at = buffer.received_at

        async def counted(sequences: Set[int]) -> dict[int, float | None]:
            read.extend(sequences)
            return await received_at(sequences)

        monkeypatch.setattr(buffer, "received_at", counted)
        await heartbeat.refresh()
        await heartbeat.refresh()
        assert read == [first]
        assert None not in {sink.oldest_undelivered_at for sink in stats.sinks.values()}
        advance(buffer, "dead-7", first + 1)
        await heartbeat.refresh()
        assert read == [first, first + 1]
        advance(buffer, "dead-7", first + 2)
        await heartbeat.refresh()
        assert stats.sinks["dead-7"].oldest_undelivered_at is None


async def test_a_status_is_of_one_moment_whatever_happens_while_the_disk_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stats = Stats()
    with DiskBuffer(tmp_path, max_size_bytes=1 << 30, keep_s=60.0, stats=stats.buffer) as buffer:
        names = ["goes on", "reaches the end", "was at the end"]
        buffer.set_sinks({name: SinkPolicy() for name in names})
        stats.sinks = {name: SinkStats(name) for name in names}
        heartbeat = Heartbeat(buffer, stats, StatusReporter(stats, Redactor([])), Notifier())
        first = buffer.end
        await buffer.append([Batch(first, 2, "app", 1.7e9, b"a\nb\n")], {})
        advance(buffer, "was at the end", first + 2)
        received_at = buffer.received_at

        async def meanwhile(sequences: Set[int]) -> dict[int, float | None]:
            found = await received_at(sequences)
            await buffer.append([Batch(first + 2, 1, "app", time.time(), b"c\n")], {})
            advance(buffer, "goes on", first + 1)
            advance(buffer, "reaches the end", first + 3)
            return found

        monkeypatch.setattr(buffer, "received_at", meanwhile)
        began_at = time.time()
        await heartbeat.refresh()
        assert {name: stats.sinks[name].backlog for name in names} == {
            "goes on": 2, "reaches the end": 0, "was at the end": 1,
        }  # fmt: skip
        assert {sink.stored for sink in stats.sinks.values()} == {3}
        oldest = {name: stats.sinks[name].oldest_undelivered_at for name in names}
        assert oldest["goes on"] == 1.7e9
        assert oldest["reaches the end"] is None
        assert began_at <= (oldest["was at the end"] or 0) <= time.time()
