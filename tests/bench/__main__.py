"""`python -m tests.bench [NAME [EVENTS]]`: throughput and latency by default."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

from tests.bench import (
    backlog,
    datagrams,
    http_intake,
    isolation,
    latency,
    listeners,
    ordinary,
    probes,
    relaying,
    sinks,
    stages,
    throughput,
    verify,
)

_COUNTING: dict[str, tuple[Callable[[int], None], int]] = {
    "throughput": (throughput.run, 500_000),
    "relaying": (relaying.run, 500_000),
    "backlog": (backlog.run, 1_000_000),
    "verify": (verify.run, 500_000),
}
"""Those that take a number of events, with how many they take without one."""

_KNOWN: dict[str, Callable[[], object]] = {
    **{name: partial(run, events) for name, (run, events) in _COUNTING.items()},
    "latency": latency.run,
    "stages": stages.run,
    "isolation": isolation.run,
    "http": http_intake.run,
    "listeners": listeners.run,
    "datagrams": datagrams.run,
    "ordinary": ordinary.run,
    "sinks": sinks.run,
    "probes": probes.run,
}


def main(arguments: list[str]) -> None:
    """Run what is asked for."""
    match arguments:
        case []:
            for name in ("throughput", "latency"):
                _KNOWN[name]()
        case ["verify", rows, *shapes]:
            verify.run(int(rows), shapes)
        case [name, events] if name in _COUNTING:
            _COUNTING[name][0](int(events))
        case [name] if name in _KNOWN:
            _KNOWN[name]()
        case _:
            raise SystemExit(f"usage: python -m tests.bench [{' | '.join(_KNOWN)}] [EVENTS]")


if __name__ == "__main__":
    main(sys.argv[1:])
