"""How fast a sink that was away gets what waits for it, beside live events of the same file."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.bench import corpus
from tests.bench.daemon import Counter, run_configuration, usage

_LOOK_S = 0.02
_PATIENCE_S = 3600


def run(events: int) -> None:
    """Print events/s and CPU per event, from the first event that arrives to the last."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus.write(folder / "events.ndjson", events)
        live = _arrivals(folder / "live", folder, events)
        _fill(folder / "late", folder, events)
        late = _arrivals(folder / "late", folder, events)
    for what, (per_s, cpu_us) in (("live, from the file", live), ("from the backlog", late)):
        print(f"  {events} events {what:20} {per_s:9,.0f} events/s {cpu_us:6.2f} µs of CPU each")


def _sink(port: int) -> dict[str, Any]:
    return {"protocol": "tcp", "server": "127.0.0.1", "port": port, "format": "cef",
            "start_at": "oldest", "framing": "newline"}  # fmt: skip


def _fill(state: Path, folder: Path, events: int) -> None:
    """Store all events while the sink's receiver is away."""
    with run_configuration(folder, {"siem": _sink(9)}, state_dir=str(state)):
        started = time.monotonic()
        while _stored(state) < events:
            if time.monotonic() - started > _PATIENCE_S:
                raise SystemExit("the events were not stored")
            time.sleep(_LOOK_S)


def _stored(state: Path) -> int:
    try:
        with closing(sqlite3.connect(f"file:{state}/buffer.db?mode=ro", uri=True)) as database:
            found = database.execute("SELECT coalesce(sum(count), 0) FROM batches").fetchone()
    except sqlite3.OperationalError:  # not made yet
        return 0
    return int(found[0])


def _arrivals(state: Path, folder: Path, events: int) -> tuple[float, float]:
    receiver = Counter(events)
    sinks = {"siem": _sink(receiver.port)}
    with run_configuration(folder, sinks, state_dir=str(state)) as process:
        while not receiver.arrivals:
            time.sleep(_LOOK_S)
        at_first, _ = usage(process.pid)
        if not receiver.done.wait(_PATIENCE_S):
            raise SystemExit(f"only {receiver.count} of {events} events arrived")
        at_last, _ = usage(process.pid)
    took_s = receiver.arrivals[-1] - receiver.arrivals[0]
    return events / took_s, (at_last - at_first) / events * 1e6
