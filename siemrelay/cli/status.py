"""`siemrelay status`: how the running relay does."""

from __future__ import annotations

from typing import Any, Final

import click
import msgspec

from siemrelay.cli.asking import NoAnswer, address_of, ask, asking_options, give_up
from siemrelay.cli.options import json_option
from siemrelay.telemetry.status import RelayReport
from siemrelay.telemetry.status_text import Tone, lines

_STYLES: Final[dict[Tone, dict[str, Any]]] = {
    "plain": {}, "heading": {"bold": True}, "dim": {"dim": True}, "good": {"fg": "green"},
    "warning": {"fg": "yellow"}, "bad": {"fg": "red"},
}  # fmt: skip


@click.command()
@asking_options
@json_option()
def status(config: str, at: tuple[str, int] | None, as_json: bool) -> None:
    """Ask the running relay how it does: rates, backlogs, and what is wrong with which sink.

    Rates are those of the last ten seconds; "behind" is the age of the oldest event that a sink
    has not delivered; "dead letters" are kept in the buffer. Exits with 69 when no relay answers.

    \b
    Examples:
      siemrelay status
      siemrelay status -c relay.yaml --json
      siemrelay status --at 127.0.0.1:9614
    """
    address = address_of(config, at)
    try:
        told = ask(address)
    except NoAnswer as error:
        give_up(error)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(told), indent=2))
        return
    click.echo("\n".join(coloured(told)))


def coloured(status: RelayReport) -> list[str]:
    """Its lines, for a terminal."""
    return [click.style(line.text, **_STYLES[line.tone]) for line in lines(status)]
