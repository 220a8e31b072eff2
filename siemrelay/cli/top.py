"""`siemrelay top`: how the running relay does, again every second."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import Final

import click

from siemrelay.cli.asking import NoAnswer, address_of, ask, asking_options, give_up
from siemrelay.cli.status import coloured

_EVERY_S: Final = 1.0


@click.command()
@asking_options
def top(config: str, at: tuple[str, int] | None) -> None:
    """Show what `siemrelay status` says, live, until Ctrl-C. Needs a terminal.

    Goes on while the relay is restarted.

    \b
    Example:
      siemrelay top -c relay.yaml
    """
    if not sys.stdout.isatty():
        click.secho("top needs a terminal; `siemrelay status` does not", err=True, fg="red")
        raise SystemExit(os.EX_USAGE)
    address = address_of(config, at)
    try:
        ask(address)
    except NoAnswer as error:
        give_up(error)
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    with suppress(KeyboardInterrupt), Live(screen=True, auto_refresh=False) as live:
        while True:
            try:
                shown = coloured(ask(address))
            except NoAnswer as error:
                shown = [f"  {error}"]
            # A row that does not fit is cut; the words below it, which say what to do, are not.
            live.update(Group(*(
                Text.from_ansi(line, no_wrap=not click.unstyle(line).startswith("  "),
                               overflow="ellipsis") for line in shown
            )), refresh=True)  # fmt: skip
            time.sleep(_EVERY_S)
