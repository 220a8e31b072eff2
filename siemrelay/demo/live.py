"""The view for terminals: the path of an event, a table of the sinks, what is going on."""

from __future__ import annotations

import time
from typing import Final

import trio
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from siemrelay import __version__
from siemrelay.demo.balance import Balance
from siemrelay.demo.picture import picture
from siemrelay.demo.plain import HEADINGS, WHO_COUNTS, balance_row
from siemrelay.demo.scene import CHOICES, Scene
from siemrelay.demo.stage import NEXT_STEPS, Stage, seconds_text

# Smooth enough for numbers that a person can still read.
_DRAW_EVERY_S: Final = 0.25

_BAR_CELLS: Final = 30
_NEWS_SHOWN: Final = 3

# The view has its own colours for a state; what is not up wants to be seen.
_STATES: Final = {"up": "green", "waiting": "yellow", "holding": "red"}


class LiveView:
    """See `play.View`."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)

    def opening(self, scene: Scene, pid: int) -> None:
        """See `play.View`."""
        self._console.print(Rule("[bold]siemrelay demo[/]", style="cyan"))
        self._console.print(
            f"A real daemon (process {pid}), two live audit logs and three receivers, all on this "
            "machine.\nThis is its whole configuration:\n"
        )
        text = scene.configuration.rstrip()
        self._console.print(Syntax(text, "yaml", theme="ansi_dark", background_color="default"))
        self._console.print()

    async def show(self, stage: Stage) -> None:
        """See `play.View`."""
        with Live(console=self._console, auto_refresh=False) as live:
            try:
                while True:
                    live.update(_scene(stage), refresh=True)
                    await trio.sleep(_DRAW_EVERY_S)
            finally:
                live.update(_scene(stage), refresh=True)

    def closing(self, balance: Balance, last_words: list[str]) -> None:
        """See `play.View`."""
        faults, console = balance.faults(), self._console
        table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        for column, heading in enumerate(HEADINGS):
            table.add_column(heading, justify="right" if column else "left")
        table.add_column("")
        for sink in balance.sinks:
            mark = "[red]✗[/]" if sink.faults() else "[green]✓[/]"
            table.add_row(*balance_row(sink), mark)
        console.print()
        console.print(Rule("[bold]the balance[/]", style="red" if faults else "green"))
        console.print(table)
        console.print(Text(f"{WHO_COUNTS}\n", "dim"))
        for fault in faults:
            console.print(Text(f"✗ {fault}", "red"))
        for line in last_words:
            console.print(Text(f"  {line}", "dim"))
        if not faults:
            console.print(
                "[bold green]✓ It balances:[/] written = delivered + filtered for every sink, and "
                "each\n  receiver has exactly the events that the relay says it delivered."
            )
        console.print()
        for what, how in NEXT_STEPS:
            console.print(Text.assemble((f"  {what:15}", "dim"), how))


def _scene(stage: Stage) -> Group:
    now = Text(" ▸ ", "bold cyan")
    outage = stage.outage()
    if outage is not None:
        now.append(outage, "bold red")
    else:
        now.append(stage.news[-1][1] if stage.news else _BEGINNING, "bold")
    return Group(_title(stage), Text(), picture(stage), _table(stage), now, *_news(stage))


_BEGINNING: Final = "events flow: from a line in the log to each sink in milliseconds"


def _title(stage: Stage) -> Text:
    share = min(stage.elapsed_s / stage.seconds, 1.0)
    done = round(share * _BAR_CELLS)
    return _one_line(
        (f"siemrelay {__version__}", "bold cyan"),
        (f"   {min(stage.elapsed_s, stage.seconds):4.1f} s of {stage.seconds:g} s  ", ""),
        ("━" * done, "cyan"), ("━" * (_BAR_CELLS - done), "bright_black"),
        ("   Ctrl-C ends it early, in order", "dim"),
    )  # fmt: skip


def _table(stage: Stage) -> Table:
    table = Table(
        box=SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0), expand=True
    )
    table.add_column("sink", width=10)
    table.add_column("state", width=9)
    for heading, width in (("received", 8), ("rate", 7), ("lag", 6), ("max lag", 7),
                           ("backlog", 7)):  # fmt: skip
        table.add_column(heading, justify="right", width=width)
    table.add_column("last event", ratio=1, no_wrap=True, overflow="ellipsis")
    now_s = time.time()
    for name in CHOICES:
        tally, told = stage.tallies[name], stage.sink(name)
        recent, colour = tally.recent(now_s), _STATES.get(told.state, "red")
        who = tally.last_actor.partition("@")[0]
        table.add_row(
            Text(name, "bold"), Text(f"● {told.state}", colour), f"{tally.unique:,}",
            f"{recent.per_s:,.0f}/s", seconds_text(recent.median_lag_s),
            seconds_text(recent.max_lag_s),
            Text(f"{told.backlog:,}", "bold red" if name == stage.down else ""),
            Text.assemble(tally.last_type, (f" {who}", "dim")),
        )  # fmt: skip
    return table


def _news(stage: Stage) -> list[Text]:
    """What happened before; always as many lines, so that the view does not jump."""
    earlier = stage.news if stage.outage() is not None else stage.news[:-1]
    lines = [
        _one_line((f"   {at_s:4.1f} s  {text}", "dim")) for at_s, text in earlier[-_NEWS_SHOWN:]
    ]
    return lines + [Text()] * (_NEWS_SHOWN - len(lines))


def _one_line(*parts: tuple[str, str]) -> Text:
    """One line however narrow the terminal is: a wrapped one would make the view jump."""
    line = Text.assemble(*parts)
    line.no_wrap, line.overflow = True, "ellipsis"
    return line
