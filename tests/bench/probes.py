"""How soon `/healthz` and `/metrics` answer while many sinks catch up with a backlog."""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Final

from tests.bench import corpus
from tests.bench.daemon import Counter, run_configuration
from tests.bench.sinks import FORMATS, SETTLED_S, sink
from tests.support.servers import free_port

_PATIENCE_S: Final = 300
_EVERY_S: Final = {"/healthz": 0.03, "/metrics": 0.5}


def run() -> None:
    """Print the middle and the worst answer, for sinks that are up and for many that are down."""
    _measure("ten formats", 100_000, [*FORMATS], 0)
    _measure("ten CEF sinks, 90 down", 200_000, ["cef"] * 10, 90)
    _measure("ten times ten formats", 20_000, [*FORMATS] * 10, 0)
    _measure("a hundred CEF sinks", 50_000, ["cef"] * 100, 0)


def _measure(name: str, events: int, formats: list[str], down: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        folder, port = Path(directory), free_port()
        corpus.write(folder / "events.later", events)
        receivers = [Counter(events) for _ in formats]
        sinks = {
            f"up-{receiver.port}": sink(form, receiver.port)
            for form, receiver in zip(formats, receivers, strict=True)
        }
        sinks |= {f"down-{n}": sink(FORMATS[n % len(FORMATS)], 9) for n in range(down)}
        listen = {"listen": f"127.0.0.1:{port}"}
        with run_configuration(folder, sinks, endpoint=listen):
            time.sleep(SETTLED_S)
            rush_over = threading.Event()
            took: dict[str, list[float]] = {path: [] for path in _EVERY_S}
            probes = [
                threading.Thread(
                    target=_probe, args=(f"http://127.0.0.1:{port}{path}", pause_s, rush_over, each)
                )
                for (path, pause_s), each in zip(_EVERY_S.items(), took.values(), strict=True)
            ]
            (folder / "events.later").rename(folder / "events.ndjson")
            for probe in probes:
                probe.start()
            for receiver in receivers:
                receiver.done.wait(_PATIENCE_S)
            rush_over.set()
            for probe in probes:
                probe.join()
    for path, answers in took.items():
        print(f"  {name:24} {path:9} median {statistics.median(answers) * 1e3:6.1f} ms, worst "
              f"{max(answers) * 1e3:6.1f} ms of {len(answers)}")  # fmt: skip


def _probe(url: str, pause_s: float, over: threading.Event, took: list[float]) -> None:
    while True:
        started = time.monotonic()
        with urllib.request.urlopen(url, timeout=_PATIENCE_S) as answer:
            answer.read()
        took.append(time.monotonic() - started)
        if over.wait(pause_s):
            return
