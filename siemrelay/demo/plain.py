"""The view for pipes and plain terminals: one line per sink every two seconds, ASCII only."""

from __future__ import annotations

import time
from itertools import count
from typing import Final

import click
import trio

from siemrelay.demo.balance import Balance, SinkBalance
from siemrelay.demo.scene import CHOICES, Scene
from siemrelay.demo.stage import NEXT_STEPS, Stage, seconds_text

_LINE_EVERY_S: Final = 2.0

HEADINGS: Final = ("sink", "written", "filtered", "delivered", "received", "repeats", "missing")
"""The balance's columns, for both views."""

WHO_COUNTS: Final = (
    "filtered and delivered are the daemon's own metrics; received, repeats and missing are what\n"
    "the receivers counted, event by event."
)


def balance_row(sink: SinkBalance) -> tuple[str, ...]:
    """One sink's cells under `HEADINGS`."""
    counts = (sink.written, sink.filtered, sink.delivered, sink.received, sink.repeats,
              len(sink.missing))  # fmt: skip
    return (sink.name, *(f"{count:,}" for count in counts))


class PlainView:
    """See `play.View`."""

    def opening(self, scene: Scene, pid: int) -> None:
        """See `play.View`."""
        click.echo(f"siemrelay demo: a real daemon (process {pid}), two live audit logs, three")
        click.echo("receivers, all on this machine. Its configuration:\n")
        for line in scene.configuration.splitlines():
            click.echo(f"    {line}".rstrip())
        click.echo()

    async def show(self, stage: Stage) -> None:
        """See `play.View`."""
        stage.heard = lambda elapsed_s, text: click.echo(f"{elapsed_s:5.1f} s  {text}")
        for number in count(1):
            await trio.sleep_until(stage.started_at + number * _LINE_EVERY_S)
            self._lines(stage)

    def _lines(self, stage: Stage) -> None:
        elapsed = f"{trio.current_time() - stage.started_at:5.1f} s"
        for name in CHOICES:
            tally, told = stage.tallies[name], stage.sink(name)
            recent = tally.recent(time.time())
            last = f"  last: {tally.last_type} by {tally.last_actor}" if tally.unique else ""
            click.echo(
                f"{elapsed}  {name:10}  {told.state:7}  received {tally.unique:6,}  "
                f"{recent.per_s:5,.0f}/s  lag {seconds_text(recent.median_lag_s)} median, "
                f"{seconds_text(recent.max_lag_s)} max  backlog {told.backlog:,}{last}"
            )
        outage = stage.outage()
        if outage:
            click.echo(f"{elapsed}  {outage}")

    def closing(self, balance: Balance, last_words: list[str]) -> None:
        """See `play.View`."""
        click.echo()
        lines = [HEADINGS, *map(balance_row, balance.sinks)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
        for line in lines:
            numbers = zip(line[1:], widths[1:], strict=True)
            cells = "  ".join(cell.rjust(width) for cell, width in numbers)
            click.echo(f"{line[0].ljust(widths[0])}  {cells}")
        click.echo(f"\n{WHO_COUNTS}\n")
        faults = balance.faults()
        for fault in faults:
            click.echo(f"does not add up: {fault}")
        for said in last_words:
            click.echo(f"  the daemon's log: {said}")
        if not faults:
            click.echo("It balances: written = delivered + filtered for every sink, and each")
            click.echo("receiver has exactly the events that the relay says it delivered.")
        click.echo()
        for what, how in NEXT_STEPS:
            click.echo(f"{what}: {how}")
