"""`siemrelay top`: the running relay's status, refreshed every second."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import Final

import click

from siemrelay.cli.live.endpoint_client import (
    RelayUnreachable,
    endpoint_of,
    endpoint_options,
    exit_unreachable,
    fetch_status,
)
from siemrelay.cli.live.status import coloured

_EVERY_S: Final = 1.0


@click.command()
@endpoint_options
def top(config: str, at: tuple[str, int] | None) -> None:
    """Show `siemrelay status` live, until Ctrl-C. Needs a terminal.

    Continues while the relay restarts.

    \b
    Example:
      siemrelay top -c relay.yaml
    """
    if not sys.stdout.isatty():
        click.secho("top needs a terminal; `siemrelay status` does not", err=True, fg="red")
        raise SystemExit(os.EX_USAGE)
    address = endpoint_of(config, at)
    try:
        fetch_status(address)
    except RelayUnreachable as error:
        exit_unreachable(error)
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    with suppress(KeyboardInterrupt), Live(screen=True, auto_refresh=False) as live:
        while True:
            try:
                shown = coloured(fetch_status(address))
            except RelayUnreachable as error:
                shown = [f"  {error}"]
            # Table rows are cut at the terminal's width; the advice below them wraps instead.
            live.update(Group(*(
                Text.from_ansi(line, no_wrap=not click.unstyle(line).startswith("  "),
                               overflow="ellipsis") for line in shown
            )), refresh=True)  # fmt: skip
            time.sleep(_EVERY_S)
