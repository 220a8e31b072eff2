"""Liveness (`/healthz`, the watchdog) and readiness (`/readyz`), computed from the stats."""

from __future__ import annotations

from typing import Final

from siemrelay.telemetry.stats import SourceStats, Stats

# The loop ticks every second; twenty missed ticks are a fault and not a delay.
_LOOP_STALE_S: Final = 20.0

# Longer than every timeout of a part: 300 s at most (`core.options.Timeout`, Splunk's indexers).
_PART_STALE_S: Final = 420.0


def stuck(stats: Stats, now: float) -> list[str]:
    """Every part that makes no progress though it could, one sentence each.

    `now` is on the clock of the `progress_at` fields. A sink that waits or holds is not stuck: a
    restart of the process would not help it. Nor is a source that has failed: it alone is
    restarted.
    """
    found = []
    if now - stats.loop_at > _LOOP_STALE_S:
        found.append(f"the main loop has not run for {now - stats.loop_at:.0f} s")
    if not stats.buffer.full:
        for source in stats.sources.values():
            stale = source.has_task and now - source.progress_at > _PART_STALE_S
            if stale and not source.failed:
                found.append(f"source {source.name} shows no sign of life")
    for sink in stats.sinks.values():
        works = sink.state in ("up", "connecting")
        if works and sink.backlog and now - sink.progress_at > _PART_STALE_S:
            found.append(f"sink {sink.name} is {sink.state} but delivers nothing of its backlog")
    return found


def unready(stats: Stats) -> list[str]:
    """Why the relay should get no records now, one sentence each; empty when it is ready."""
    if stats.stopping:
        return ["stopping"]
    if not stats.ready:
        return ["starting"]
    what = "file system of state_dir" if stats.buffer.disk_full else "buffer"
    found = [f"the {what} is full: intake waits"] if stats.buffer.full else []
    for source in stats.sources.values():
        found += unready_source(source)
    return found


def unready_source(source: SourceStats) -> list[str]:
    """Why this source takes no records, or not all, now; empty when it does."""
    if source.failed:
        return [f"source {source.name} failed: {source.last_error}"]
    if source.unreadable_why:
        return [f"source {source.name} {source.unreadable_why}"]
    return []
