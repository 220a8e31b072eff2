"""A file of events → disk buffer → CEF over TCP, without workers and with one and more: events/s,
CPU per event, memory, beside what a model says that each could reach; then each stage alone.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

from tests.bench import corpus, stages
from tests.bench.daemon import Counter, daemon, usage

# A run that has not ended by then is broken, not slow.
_PATIENCE_S = 300

_WORKERS = (0, 1, 2, 4, 8)
_KEPT = 0.6
_ROUNDS = 3


def run(events: int) -> None:
    """Print the medians of runs that take turns, start-up included, then each stage."""
    cores = len(os.sched_getaffinity(0))
    counts = [workers for workers in _WORKERS if workers <= max(cores, 2)]
    rounds = [[_round(events, workers) for workers in counts] for _ in range(_ROUNDS)]
    print(f"{events} events to CEF over TCP, 60 % kept, fsync on, {cores} cores; medians of "
          f"{_ROUNDS}")  # fmt: skip
    for at, workers in enumerate(counts):
        seconds, cpu_s, peak_mb = (
            statistics.median(each[at][what] for each in rounds) for what in range(3)
        )
        print(f"  workers: {workers}  {events / seconds:9,.0f} events/s "
              f"{cpu_s / events * 1e6:6.2f} µs of CPU per event {peak_mb:6.1f} MB")  # fmt: skip
    print("stages, each alone:")
    costs = stages.run()
    print("a model of these stages, if nothing else uses the cores:")
    for workers in counts:
        print(f"  workers: {workers}  {_model(costs, cores, workers):9,.0f} events/s")


def _model(costs: dict[str, float], cores: int, workers: int) -> float:
    """Events/s, of the costs of stages in µs: as fast as the slowest of those that share a core."""
    formatting = costs["decode, the fields of cef"] + costs["filter"] + _KEPT * costs["format cef"]
    loop = costs["read and cut"] + _KEPT * costs["frame"]
    commit = costs["compress and commit (fsync)"]  # in a thread that seldom needs the interpreter
    if workers:
        loop += costs["to a worker and back"]
        slowest = max(loop, commit, formatting / workers)
    else:
        loop += formatting
        slowest = max(loop, commit)
    total = loop + commit + (formatting if workers else 0.0)
    return 1e6 / max(slowest, total / cores)


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
