"""A file of events → disk buffer → CEF over TCP: events/s, CPU per event, memory, by stage."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from tests.bench import corpus, stages
from tests.bench.daemon import Counter, daemon, usage

# A run that has not ended by then is broken, not slow.
_PATIENCE_S = 300


def run(events: int) -> None:
    """Print the figures of one run, start-up included, then of each stage alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kept = corpus.write(folder / "events.ndjson", events)
        (folder / "events.ndjson").read_bytes()  # into the page cache
        receiver = Counter(kept)
        started = time.monotonic()
        with daemon(folder, receiver.port, corpus.KEPT_TYPES) as process:
            if not receiver.done.wait(_PATIENCE_S):
                raise SystemExit(f"only {receiver.count} of {kept} events arrived")
            took = receiver.arrivals[-1] - started
            cpu_s, peak_mb = usage(process.pid)
    print(f"{events} events in, {kept} kept and delivered as CEF over TCP, fsync on")
    print(f"  {events / took:10,.0f} events/s from the start of the process ({took:.2f} s)")
    print(f"  {cpu_s / events * 1e6:10.2f} µs of CPU per event")
    print(f"  {peak_mb:10.1f} MB resident at the most")
    print("stages, each alone:")
    stages.run()
