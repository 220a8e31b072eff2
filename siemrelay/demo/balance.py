"""Compares what was written, what the daemon counts and what the receivers got."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from siemrelay.demo.daemon import Figures, SinkFigures
from siemrelay.demo.ledger import Ledger, Tally
from siemrelay.demo.setup import CHOICES

# Enough ids to look up in a log, few enough for one line.
_IDS_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class SinkBalance:
    """One sink: the daemon counts `filtered` and `delivered`, the receiver the rest."""

    name: str
    written: int
    filtered: int
    delivered: int
    received: int
    repeats: int = 0
    missing: tuple[str, ...] = ()
    unwanted: int = 0
    foreign: int = 0

    def faults(self) -> list[str]:
        """Every discrepancy, one sentence each; empty when everything adds up."""
        name, found = self.name, []
        if self.written != self.delivered + self.filtered:
            found.append(
                f"{name}: {self.written:,} written, but the relay counts {self.delivered:,} "
                f"delivered and {self.filtered:,} filtered"
            )
        if self.received != self.delivered:
            found.append(
                f"{name}: the relay counts {self.delivered:,} delivered, the receiver "
                f"{self.received:,} received"
            )
        if self.missing:
            ids = ", ".join(self.missing[:_IDS_SHOWN])
            more = ", ..." if len(self.missing) > _IDS_SHOWN else ""
            found.append(f"{name}: {len(self.missing):,} never arrived: {ids}{more}")
        if self.unwanted:
            found.append(f"{name}: {self.unwanted:,} arrived although its `events` excludes them")
        if self.foreign:
            found.append(f"{name}: {self.foreign:,} messages were not events of this demo")
        return found


@dataclass(frozen=True, slots=True)
class Balance:
    """The whole demo; `stored` is the daemon's count of the records in its buffer."""

    written: int
    stored: int
    sinks: tuple[SinkBalance, ...]

    def faults(self) -> list[str]:
        """Every discrepancy, one sentence each; empty when everything adds up."""
        found = []
        if self.stored != self.written:
            found.append(f"{self.written:,} written, but the relay stored {self.stored:,}")
        return found + [fault for sink in self.sinks for fault in sink.faults()]

    @property
    def exit_code(self) -> int:
        """0 when everything adds up, else 1."""
        return 1 if self.faults() else 0


def compare(ledger: Ledger, tallies: Mapping[str, Tally], figures: Figures) -> Balance:
    """Compare everything so far, event by event."""
    sinks = []
    for name, tally in tallies.items():
        counted = figures.sinks.get(name, SinkFigures())
        missing, unwanted = tally.compare(ledger.wanted(CHOICES[name]))
        sinks.append(
            SinkBalance(
                name, len(ledger), counted.filtered, counted.delivered, tally.unique, tally.repeats,
                tuple(missing), unwanted, tally.foreign,
            )
        )  # fmt: skip
    return Balance(len(ledger), figures.stored, tuple(sinks))


def settled(ledger: Ledger, tallies: Mapping[str, Tally], figures: Figures) -> bool:
    """Whether every event is delivered or filtered, judged by counts alone, which is cheap."""
    return figures.stored == len(ledger) and all(
        sink.delivered + sink.filtered == len(ledger) and tallies[name].unique == sink.delivered
        for name, sink in figures.sinks.items()
    )
