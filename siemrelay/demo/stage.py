"""What the views look at while the demo plays, and the news they tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import trio

from siemrelay.demo.audit_log import Writer
from siemrelay.demo.daemon import Figures, SinkFigures
from siemrelay.demo.ledger import Ledger, Tally


@dataclass(slots=True)
class Stage:
    """The demo as it is now. Times are trio's; `down` is the name of the sink without receiver."""

    seconds: float
    ledger: Ledger
    writer: Writer
    tallies: Mapping[str, Tally]
    started_at: float = field(default_factory=trio.current_time)
    ended_at: float | None = None
    figures: Figures = field(default_factory=Figures)
    down: str | None = None
    news: list[tuple[float, str]] = field(default_factory=list)
    heard: Callable[[float, str], None] = lambda elapsed_s, text: None

    @property
    def elapsed_s(self) -> float:
        """Since the writer began; stands still once it has ended."""
        until = trio.current_time() if self.ended_at is None else self.ended_at
        return until - self.started_at

    def sink(self, name: str) -> SinkFigures:
        """A sink's own figures."""
        return self.figures.sinks.get(name, SinkFigures())

    def tell(self, text: str) -> None:
        """Say what happened; a demo has a handful of these."""
        elapsed_s = trio.current_time() - self.started_at
        self.news.append((elapsed_s, text))
        self.heard(elapsed_s, text)

    def outage(self) -> str | None:
        """The line about the receiver that is down; None while all are up."""
        if self.down is None:
            return None
        waiting = self.sink(self.down).backlog
        return (
            f"{self.down} receiver is down: {waiting:,} records wait in the buffer; "
            "the others go on"
        )


def seconds_text(lag_s: float | None) -> str:
    """A lag for people: `4 ms`, `1.2 s`, `-` for none."""
    if lag_s is None:
        return "-"
    return f"{lag_s * 1000:.0f} ms" if lag_s < 1 else f"{lag_s:.1f} s"


NEXT_STEPS: Final = (
    ("write your own", "config/siemrelay.yaml and config/examples/ have every kind of sink"),
    ("check it", "siemrelay check -c FILE"),
    ("run it", "siemrelay run -c FILE"),
    ("read on", "README.md"),
)
"""Where to go from here: what, and how."""
