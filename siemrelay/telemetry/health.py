"""Whether the relay lives (`/healthz`, the watchdog) and whether it is ready (`/readyz`). Pure."""

from __future__ import annotations

from typing import Final

from siemrelay.telemetry.stats import Stats

# The loop ticks every second; twenty missed ticks are no hiccup.
_LOOP_STALE_S: Final = 20.0

# Parts time out by themselves well before this: the default `timeout` of a sink is 30 s, and the
# longest wait of all is for Splunk's indexers, 300 s.
_PART_STALE_S: Final = 420.0


def stuck(stats: Stats, now: float) -> list[str]:
    """What makes no progress though it could, in words; empty when all is well.

    `now` is on the clock of the `progress_at` fields. A sink that waits or holds is no fault of
    this process: restarting would not mend it.
    """
    found = []
    if now - stats.loop_at > _LOOP_STALE_S:
        found.append(f"the main loop has not run for {now - stats.loop_at:.0f} s")
    if not stats.buffer.full:
        for source in stats.sources.values():
            if now - source.progress_at > _PART_STALE_S:
                found.append(f"source {source.name} shows no sign of life")
    for sink in stats.sinks.values():
        if sink.state == "up" and sink.backlog and now - sink.progress_at > _PART_STALE_S:
            found.append(f"sink {sink.name} is up but delivers nothing of its backlog")
    return found


def unready(stats: Stats) -> list[str]:
    """Why records should not be sent here now; empty when they may."""
    if stats.stopping:
        return ["stopping"]
    if not stats.ready:
        return ["starting"]
    return ["the buffer is full: intake waits"] if stats.buffer.full else []
