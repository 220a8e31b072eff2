"""`siemrelay status`: rates, backlogs and errors of the running relay."""

from __future__ import annotations

from typing import Any, Final

import click
import msgspec

from siemrelay.cli.live.endpoint_client import (
    RelayUnreachable,
    endpoint_of,
    endpoint_options,
    exit_unreachable,
    fetch_status,
    warn_of_another,
)
from siemrelay.cli.options import json_option
from siemrelay.telemetry.status import RelayReport
from siemrelay.telemetry.status_text import Line, Tone, lines

_STYLES: Final[dict[Tone, dict[str, Any]]] = {
    "plain": {}, "heading": {"bold": True}, "dim": {"dim": True}, "good": {"fg": "green"},
    "warning": {"fg": "yellow"}, "bad": {"fg": "red"},
}  # fmt: skip


@click.command()
@endpoint_options
@json_option()
def status(config: str, at: tuple[str, int] | None, as_json: bool) -> None:
    """Show the running relay's rates, backlogs and errors.

    Rates are averages over the last ten seconds. "behind" is the age of the oldest record that a
    sink has not settled. "dead letters" counts the events that the receiver refused; the buffer
    keeps them. Exits with 69 when no relay answers.

    \b
    Examples:
      siemrelay status
      siemrelay status -c relay.yaml --json
      siemrelay status --at 127.0.0.1:9614
    """
    address = endpoint_of(config, at)
    try:
        report = fetch_status(address)
    except RelayUnreachable as error:
        exit_unreachable(error)
    if at is None:
        warn_of_another(report, config)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2))
        return
    click.echo("\n".join(coloured(report)))


def coloured(status: RelayReport) -> list[str]:
    """The report's lines with colours for a terminal."""
    return list(map(styled, lines(status)))


def styled(line: Line) -> str:
    """The line in its colour."""
    return click.style(line.text, **_STYLES[line.tone])
