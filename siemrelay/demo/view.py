"""The output of the demo: the configuration, the flow while it runs, the balance at its end.

`PlainView` prints lines, for pipes; `LiveView` redraws a picture of 80 columns and 16 lines.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from itertools import count
from pathlib import Path
from typing import Final, Protocol

import click
import trio

from siemrelay import __version__
from siemrelay.demo.balance import Balance, SinkBalance
from siemrelay.demo.ledger import Recent, Sample
from siemrelay.demo.progress import DemoProgress
from siemrelay.demo.setup import CHOICES, TAKES, TRANSPORTS, DemoFiles
from siemrelay.formats.writing.text import sanitize_for_display

_LINE_EVERY_S: Final = 2.0

# Smooth, and slow enough for a person to read the numbers.
_DRAW_EVERY_S: Final = 0.25

_COLUMNS: Final = 79
_BAR_CELLS: Final = 24
_ANNOUNCEMENTS_SHOWN: Final = 3

_STATE_COLOURS: Final = {"up": "green", "waiting": "yellow", "holding": "red"}
_BALANCE_HEADINGS: Final = (
    "sink", "written", "filtered", "delivered", "received", "repeats", "missing",
)  # fmt: skip
_LIVE_HEADINGS: Final = (
    f"{'sink':11}{'state':9}{'format':11}{'takes':15}"
    f"{'received':>9}{'rate':>7}{'lag':>8}{'backlog':>8}"
)


class View(Protocol):
    """Shows one demo to a person."""

    def opening(self, files: DemoFiles, pid: int) -> None:
        """Show the configuration and the daemon's process id, before the first event."""

    async def show(self, progress: DemoProgress) -> None:
        """Show the progress until cancelled."""

    def closing(self, balance: Balance, samples: list[Sample], log_tail: list[str]) -> None:
        """Show samples and the balance; `log_tail` of the daemon explains one that fails."""


class PlainView:
    """Prints lines: a block of one line per sink every two seconds, and what happens."""

    def opening(self, files: DemoFiles, pid: int) -> None:
        """See `View`."""
        click.secho(f"siemrelay demo: a real daemon (process {pid}), two live audit logs and three",
                    bold=True)  # fmt: skip
        click.secho("receivers, all on this machine. Its configuration:\n", bold=True)
        for line in files.configuration.splitlines():
            click.echo(f"    {line}".rstrip())
        click.echo()

    async def show(self, progress: DemoProgress) -> None:
        """See `View`."""
        progress.on_announcement = lambda elapsed_s, text: click.echo(f"{elapsed_s:5.1f} s  {text}")
        for number in count(1):
            await trio.sleep_until(progress.started_at + number * _LINE_EVERY_S)
            elapsed_s = trio.current_time() - progress.started_at
            for line in (_flow(progress), _LIVE_HEADINGS, *_sink_lines(progress)):
                click.echo(f"{elapsed_s:5.1f} s  {line}")

    def closing(self, balance: Balance, samples: list[Sample], log_tail: list[str]) -> None:
        """See `View`."""
        for sample in samples:
            click.secho("\none event as the product wrote it", bold=True)
            _print_wrapped(sample.line)
            for name, message in sample.received.items():
                click.secho(f"as {name} received it ({TRANSPORTS[name]})", bold=True)
                _print_wrapped(message)
        click.echo()
        _print_balance(balance)
        faults = balance.faults()
        for fault in faults:
            click.secho(f"does not add up: {fault}", fg="red")
        for line in log_tail:
            click.echo(f"  the daemon's log: {line}")
        if not faults:
            click.secho("It balances: written = delivered + filtered for every sink, and each\n"
                        "receiver has exactly the events that the relay counts as delivered.",
                        fg="green")  # fmt: skip
        click.echo("\nwrite your own configuration: config/siemrelay.yaml and config/examples/")
        for command in ("check -c FILE", "test -c FILE SINK", "run -c FILE"):
            click.echo(f"  {_program()} {command}")


class LiveView(PlainView):
    """Redraws the flow four times a second; needs a terminal with UTF-8."""

    async def show(self, progress: DemoProgress) -> None:
        """See `View`."""
        from rich.console import Console  # importing rich takes a tenth of a second
        from rich.live import Live
        from rich.text import Text

        def picture() -> Text:
            text = Text.from_ansi("\n".join(_picture(progress)))
            text.no_wrap, text.overflow = True, "crop"
            return text

        with Live(console=Console(highlight=False), auto_refresh=False) as live:
            try:
                while True:
                    live.update(picture(), refresh=True)
                    await trio.sleep(_DRAW_EVERY_S)
            finally:
                live.update(picture(), refresh=True)


def _picture(progress: DemoProgress) -> list[str]:
    """At most 16 lines of at most 79 cells, with ANSI colours."""
    done = round(min(progress.elapsed_s / progress.seconds, 1.0) * _BAR_CELLS)
    bar = click.style("━" * done, fg="cyan") + "─" * (_BAR_CELLS - done)
    elapsed_s = min(progress.elapsed_s, progress.seconds)
    outage = progress.outage()
    earlier = progress.announcements if outage else progress.announcements[:-1]
    latest = progress.announcements[-1][1] if progress.announcements else "events flow"
    now = click.style(outage, fg="red", bold=True) if outage else click.style(latest, bold=True)
    history = [f"  {at_s:5.1f} s  {text}"[:_COLUMNS] for at_s, text in earlier]
    history = history[-_ANNOUNCEMENTS_SHOWN:]
    # Always as many lines, so that the picture does not jump.
    history += [""] * (_ANNOUNCEMENTS_SHOWN - len(history))
    return [
        click.style(f"siemrelay {__version__}", fg="cyan", bold=True)
        + f"  {elapsed_s:4.1f} of {progress.seconds:g} s  {bar}  Ctrl-C ends it early",
        "",
        _flow(progress),
        "",
        click.style(_LIVE_HEADINGS, bold=True),
        *_sink_lines(progress, colours=True),
        "",
        f"▸ {now}",
        *(click.style(line, dim=True) for line in history),
    ]


def _flow(progress: DemoProgress) -> str:
    snapshot = progress.snapshot
    logs = " + ".join(f"{product} {lines:,}" for product, lines in snapshot.written.items())
    return f"lines written: {logs} -> stored on disk: {snapshot.figures.stored:,} -> sinks"


def _sink_lines(progress: DemoProgress, *, colours: bool = False) -> list[str]:
    lines = []
    for name in CHOICES:
        sink = progress.snapshot.sink(name)
        recent = progress.snapshot.received.get(name, Recent(0, 0.0, None))
        state = f"{sink.state:9}"
        if colours:
            state = click.style(state, fg=_STATE_COLOURS.get(sink.state, "red"))
        lines.append(
            f"{name:11}{state}{TRANSPORTS[name]:11}{TAKES[name]:15}{recent.received:>9,}"
            f"{recent.per_s:>5,.0f}/s{_lag(recent.median_lag_s):>8}{sink.backlog:>8,}"
        )
    return lines


def _lag(lag_s: float | None) -> str:
    if lag_s is None:
        return "-"
    return f"{lag_s * 1000:.0f} ms" if lag_s < 1 else f"{lag_s:.1f} s"


def _print_wrapped(data: bytes) -> None:
    width = max(shutil.get_terminal_size((_COLUMNS + 1, 24)).columns - 1, 40)
    text = sanitize_for_display(data.decode("utf-8", "replace"))
    for line in textwrap.wrap(text, width - 2, break_on_hyphens=False):
        click.echo(f"  {line}")


def _print_balance(balance: Balance) -> None:
    lines = [_BALANCE_HEADINGS, *map(_balance_cells, balance.sinks)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for index, line in enumerate(lines):
        numbers = zip(line[1:], widths[1:], strict=True)
        cells = "  ".join(cell.rjust(width) for cell, width in numbers)
        click.secho(f"{line[0].ljust(widths[0])}  {cells}", bold=index == 0)
    click.echo("\nfiltered and delivered are the daemon's own metrics; received, repeats and\n"
               "missing are what the receivers counted, event by event.\n")  # fmt: skip


def _balance_cells(sink: SinkBalance) -> tuple[str, ...]:
    counts = (sink.written, sink.filtered, sink.delivered, sink.received, sink.repeats,
              len(sink.missing))  # fmt: skip
    return (sink.name, *(f"{number:,}" for number in counts))


def _program() -> str:
    """The command as this person can type it: the program's name if it is in PATH, else a path."""
    name = Path(sys.argv[0])
    if name.name != "siemrelay":
        return f"{sys.executable} -m siemrelay"
    found = shutil.which("siemrelay")
    if found is not None and Path(found).resolve() == name.resolve():
        return "siemrelay"
    return str(name)
