"""`python -m tests.bench [throughput [EVENTS] | latency | stages | isolation | http | listeners
| datagrams | ordinary | sinks
| backlog [EVENTS] | relaying [EVENTS]]`.

Throughput and latency by default.
"""

from __future__ import annotations

import sys

from tests.bench import (
    backlog,
    datagrams,
    http_intake,
    isolation,
    latency,
    listeners,
    ordinary,
    relaying,
    sinks,
    stages,
    throughput,
)

_EVENTS = 500_000
_BACKLOG = 1_000_000

_KNOWN = (
    "all", "throughput", "latency", "stages", "isolation", "http", "listeners", "datagrams",
    "ordinary", "sinks", "backlog", "relaying",
)  # fmt: skip


def main(arguments: list[str]) -> None:
    """Run what is asked for."""
    what, *rest = arguments or ["all"]
    if what not in _KNOWN:
        raise SystemExit(f"there is no {what}; there is {' '.join(_KNOWN)}")
    if what in ("throughput", "all"):
        throughput.run(int(rest[0]) if rest else _EVENTS)
    if what in ("latency", "all"):
        latency.run()
    if what == "stages":
        stages.run()
    if what == "isolation":
        isolation.run()
    if what == "http":
        http_intake.run()
    if what == "listeners":
        listeners.run()
    if what == "datagrams":
        datagrams.run()
    if what == "ordinary":
        ordinary.run()
    if what == "sinks":
        sinks.run()
    if what == "relaying":
        relaying.run(int(rest[0]) if rest else _EVENTS)
    if what == "backlog":
        backlog.run(int(rest[0]) if rest else _BACKLOG)


if __name__ == "__main__":
    main(sys.argv[1:])
