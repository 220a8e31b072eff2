"""What more sinks cost: CPU of the relay and its peak memory for one, ten alike, ten formats, and
ten beside ninety dead ones.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench import corpus
from tests.bench.daemon import Counter, run_configuration, until_all_arrived

_EVENTS = 200_000
_ROUNDS = 3

# The attempts of dead sinks are seldom by then: a relay is not started all the time.
SETTLED_S = 15.0
FORMATS = ("syslog", "rfc3164", "json", "raw", "cef", "leef", "leef1", "gelf", "ecs", "ocsf")


def run() -> None:
    """Print medians of several rounds that take turns, and the ratios to one sink or to the sum."""
    cases: dict[str, tuple[list[str], int]] = {
        "one CEF sink": (["cef"], 0),
        "ten CEF sinks": (["cef"] * 10, 0),
        "ten formats": ([*FORMATS], 0),
        "one CEF sink, 99 dead": (["cef"], 99),
        "ten CEF sinks, 90 dead": (["cef"] * 10, 90),
        "ten formats, 90 dead": ([*FORMATS], 90),
        **{f"{form} alone": ([form], 0) for form in FORMATS},
    }
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in cases}
    for _ in range(_ROUNDS):
        for name, (formats, dead) in cases.items():
            found[name].append(_round(formats, dead))
    print(f"{_EVENTS} events to every sink, medians of {_ROUNDS} rounds in turn")
    medians = {name: tuple(map(statistics.median, zip(*rounds, strict=True)))
               for name, rounds in found.items()}  # fmt: skip
    for name, (seconds, cpu_s, peak_mb) in medians.items():
        print(f"  {name:24} {_EVENTS / seconds:9,.0f} events/s {cpu_s:7.2f} s of CPU "
              f"{peak_mb:7.1f} MB")  # fmt: skip
    one, alone = medians["one CEF sink"], sum(medians[f"{form} alone"][1] for form in FORMATS)
    print(f"  ten CEF sinks cost {medians['ten CEF sinks'][1] / one[1]:.2f} times the CPU of one")
    print(f"  ten formats cost {medians['ten formats'][1] / alone:.2f} times the sum of each alone")
    for few, many in (("one CEF sink", "one CEF sink, 99 dead"),
                      ("ten CEF sinks", "ten CEF sinks, 90 dead"),
                      ("ten formats", "ten formats, 90 dead")):  # fmt: skip
        alone_s, alone_cpu_s, _ = medians[few]
        beside_s, beside_cpu_s, _ = medians[many]
        print(f"  {many}: {alone_s / beside_s:.0%} of the events/s alone, "
              f"{beside_cpu_s / alone_cpu_s:.0%} of the CPU")  # fmt: skip


def _round(formats: list[str], dead: int) -> tuple[float, float, float]:
    """Seconds from the first event that arrives to the last, CPU seconds and peak MB."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus.write(folder / "events.later", _EVENTS)
        receivers = [Counter(_EVENTS) for _ in formats]
        sinks: dict[str, Any] = {
            f"{form}-{receiver.port}": sink(form, receiver.port)
            for form, receiver in zip(formats, receivers, strict=True)
        }
        sinks |= {f"dead-{n}": sink(FORMATS[n % len(FORMATS)], 9) for n in range(dead)}
        with run_configuration(folder, sinks) as process:
            time.sleep(SETTLED_S if dead else 0.0)
            (folder / "events.later").rename(folder / "events.ndjson")
            return until_all_arrived(process, receivers)


def sink(form: str, port: int) -> dict[str, Any]:
    return {"protocol": "tcp", "server": "127.0.0.1", "port": port, "format": form,
            "framing": "newline"}  # fmt: skip
