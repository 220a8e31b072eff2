"""A relay that listens, where it does, and the records that have come out of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.conftest import MakeDaemon
from tests.support.daemon import Daemon, until


def relay(make: MakeDaemon, listen: Any = "tcp://127.0.0.1:0", **settings: Any) -> Daemon:
    """A relay with the syslog source `logs`, whose records go to a file as they are."""
    return relay_of(make, {"logs": {"type": "syslog", "listen": listen, **settings}})


def relay_of(make: MakeDaemon, sources: Mapping[str, Any], name: str = "out") -> Daemon:
    """A relay with these sources, whose records go to the file `name` as they are."""
    daemon = make({})
    path = str(daemon.directory / name)
    daemon.config["sinks"] = {"out": {"protocol": "file", "path": path, "format": "raw"}}
    daemon.config["sources"] = dict(sources)
    return daemon


def port_of(daemon: Daemon, source: str = "logs") -> int:
    """Where it listens, once it does."""
    (line, *_) = until(lambda: [s for s in daemon.said("listening") if s["source"] == source])
    return int(line["port"])


def forwarded(daemon: Daemon, name: str = "out") -> list[bytes]:
    """The records that have come out so far."""
    path: Path = daemon.directory / name
    return path.read_bytes().splitlines() if path.exists() else []
