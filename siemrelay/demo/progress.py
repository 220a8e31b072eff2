"""The state of a running demo, which the views show."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import trio

from siemrelay.demo.audit_log import Writer
from siemrelay.demo.daemon import Daemon, Figures, SinkFigures
from siemrelay.demo.ledger import Recent, Tally


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Counts that agree with each other: received ≤ stored ≤ written at every moment.

    Receivers are read first, then the daemon, then the writer, so that what moves in between only
    widens the distance (test_no_snapshot_shows_more_received_than_stored_or_stored_than_written).
    """

    received: Mapping[str, Recent] = field(default_factory=dict)
    figures: Figures = field(default_factory=Figures)
    written: Mapping[str, int] = field(default_factory=dict)

    def sink(self, name: str) -> SinkFigures:
        """The daemon's own figures about a sink."""
        return self.figures.sinks.get(name, SinkFigures())


@dataclass(slots=True)
class DemoProgress:
    """The demo so far. Times are trio's; `down` names the sink whose receiver is down."""

    seconds: float
    writer: Writer
    tallies: Mapping[str, Tally]
    started_at: float = field(default_factory=trio.current_time)
    ended_at: float | None = None
    snapshot: Snapshot = field(default_factory=Snapshot)
    down: str | None = None
    announcements: list[tuple[float, str]] = field(default_factory=list)
    on_announcement: Callable[[float, str], None] = lambda elapsed_s, text: None

    @property
    def elapsed_s(self) -> float:
        """Time since the writer began; stops when the writer ends."""
        until = trio.current_time() if self.ended_at is None else self.ended_at
        return until - self.started_at

    async def refresh(self, daemon: Daemon) -> None:
        """Take a new snapshot."""
        now_s = time.time()
        received = {name: tally.recent(now_s) for name, tally in self.tallies.items()}
        figures = await daemon.figures()
        written = {product: log.lines for product, log in self.writer.logs.items()}
        self.snapshot = Snapshot(received, figures, written)

    def announce(self, text: str) -> None:
        """Report what just happened; a demo has a handful of these."""
        elapsed_s = trio.current_time() - self.started_at
        self.announcements.append((elapsed_s, text))
        self.on_announcement(elapsed_s, text)

    def outage(self) -> str | None:
        """A sentence about the receiver that is down; None while all are up."""
        if self.down is None:
            return None
        waiting = self.snapshot.sink(self.down).backlog
        return f"{self.down}: receiver down, {waiting:,} records wait; the others go on"
