"""The heartbeat runs on while a reload removes sinks, whose cursors go before their stats."""

from __future__ import annotations

from pathlib import Path

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.buffer.cursors import SinkPolicy
from siemrelay.relay.heartbeat import Heartbeat
from siemrelay.relay.systemd import Notifier
from siemrelay.telemetry.log import Redactor
from siemrelay.telemetry.stats import SinkStats, Stats
from siemrelay.telemetry.status import StatusReporter


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
