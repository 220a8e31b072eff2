"""A file of events → disk buffer → CEF over TCP: what each stage costs and its share; then, without
workers and with one and more, events/s, CPU per event and memory beside what the stages allow.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from siemrelay.pipeline.workers.cores import usable_cores
from tests.bench import corpus, stages
from tests.bench.daemon import Counter, daemon, usage

# A run that has not ended by then is broken, not slow.
_PATIENCE_S = 300

_WORKERS = (0, 1, 2, 4, 8)
_KEPT = 0.6
_EXCHANGE = "to a worker and back, if it has one"
_ROUNDS = 3


def run(events: int) -> None:
    """Print each stage, then the medians of runs that take turns, start-up included."""
    print("stages, each alone:")
    costs = _path(stages.run())
    total_us = sum(costs.values()) - costs[_EXCHANGE]
    print("their shares of an event's way, without workers:")
    for name, cost_us in costs.items():
        print(f"  {name:38} {cost_us:7.2f} µs {cost_us / total_us:5.0%}")
    cores = usable_cores()
    counts = [workers for workers in _WORKERS if workers <= max(cores, 2)]
    rounds = [[_round(events, workers) for workers in counts] for _ in range(_ROUNDS)]
    print(f"{events} events to CEF over TCP, 60 % kept, fsync on, {cores} cores; medians of "
          f"{_ROUNDS}, and what the stages allow if nothing else uses the cores")  # fmt: skip
    for at, workers in enumerate(counts):
        seconds, cpu_s, peak_mb = (
            statistics.median(each[at][what] for each in rounds) for what in range(3)
        )
        print(f"  workers: {workers}  {events / seconds:9,.0f} events/s "
              f"{cpu_s / events * 1e6:6.2f} µs of CPU per event {peak_mb:6.1f} MB; "
              f"model {_model(costs, cores, workers):9,.0f} events/s")  # fmt: skip


def _path(costs: dict[str, float]) -> dict[str, float]:
    """What an event passes, in µs of CPU, of those that are kept and those that are not."""
    return {
        "read and cut": costs["read and cut"],
        "compress and commit (fsync)": costs["compress and commit (fsync)"],
        "decode": costs["decode, the fields of cef"],
        "filter": costs["filter"],
        "format": _KEPT * costs["format cef"],
        "frame": _KEPT * costs["frame"],
        _EXCHANGE: costs["to a worker and back"],
    }


def _model(costs: dict[str, float], cores: int, workers: int) -> float:
    """Events/s: as many as the cores allow, the loop, the disk's thread, and those that format.

    The relay formats, too, in the time that its loop has left.
    """
    formatting = costs["decode"] + costs["filter"] + costs["format"]
    loop = costs["read and cut"] + costs["frame"]
    commit = costs["compress and commit (fsync)"]  # in a thread that seldom needs the interpreter
    if workers:
        loop += costs[_EXCHANGE]
    limits = (
        loop,
        commit,
        (loop + formatting) / (1 + workers),
        (loop + commit + formatting) / cores,
    )
    return 1e6 / max(limits)


def _round(events: int, workers: int) -> tuple[float, float, float]:
    """Seconds from the start of the process to the last event, CPU seconds, peak MB."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kept = corpus.write(folder / "events.ndjson", events)
        (folder / "events.ndjson").read_bytes()  # into the page cache
        receiver = Counter(kept)
        started = time.monotonic()
        with daemon(folder, receiver.port, corpus.KEPT_TYPES, workers=workers) as process:
            if not receiver.done.wait(_PATIENCE_S):
                raise SystemExit(f"only {receiver.count} of {kept} events arrived")
            cpu_s, peak_mb = usage(process.pid)
            return receiver.arrivals[-1] - started, cpu_s, peak_mb
