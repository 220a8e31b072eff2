"""`siemrelay tap`: live events of the running relay, as decoded and as sent."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime

import click
import msgspec

from siemrelay.cli.live.control_client import directory_of, follow, print_answer
from siemrelay.cli.options import complete_sinks, complete_sources, config_option, json_option
from siemrelay.formats.writing.text import sanitize_for_display
from siemrelay.relay.control import ControlAnswer, TapLine, TapRequest

# More than one line of a tap ever has.
_SHOWN_CHARACTERS = 64 * 1024


@click.command()
@config_option()
@click.option("--sink", "sinks", metavar="SINK", multiple=True, shell_complete=complete_sinks,
              help="Only events that are sent to this sink.")  # fmt: skip
@click.option("--source", "sources", metavar="SOURCE", multiple=True,
              shell_complete=complete_sources,
              help="Only events of this source.")  # fmt: skip
@click.option("--type", "types", metavar="TYPE", multiple=True,
              help="Only events of this type, written as in `events:`.")  # fmt: skip
@json_option()
def tap(
    config: str, sinks: tuple[str, ...], sources: tuple[str, ...], types: tuple[str, ...],
    *, as_json: bool,
) -> None:  # fmt: skip
    """Show the running relay's events live, as decoded and as sent, until Ctrl-C.

    Each option may be repeated. Without --sink every stored event is shown once as decoded, then
    each message that is sent for it. Configured secrets are shown as ***. Watching never slows the
    relay down: at most 1,000 events a second are shown, fewer if this terminal is slow, and the
    others are counted. Exits with 64 for an unknown name, 69 when no relay runs.

    \b
    Examples:
      siemrelay tap
      siemrelay tap --sink splunk --type "User *"
      siemrelay tap --source alm --json | jq .text
    """
    request = TapRequest(list(sinks), list(sources), list(types))
    with suppress(KeyboardInterrupt):
        for line in follow(directory_of(config), request, None):
            if isinstance(line, ControlAnswer):
                print_answer(line, os.EX_USAGE)
            elif as_json:
                click.echo(msgspec.json.encode(line))
            elif isinstance(line, TapLine):
                _print(line)


def _print(line: TapLine) -> None:
    time = datetime.fromtimestamp(line.at).astimezone().time().isoformat("milliseconds")
    if line.lost:
        click.secho(f"{time}  {line.lost:,} events came too fast to be shown", fg="yellow")
        return
    way = f"{line.source} → {line.sink}" if line.sink else line.source
    head = f"{time}  {line.what:7}  #{line.sequence}  {way}  {sanitize_for_display(line.type)}"
    click.secho(head, bold=line.what == "decoded", fg="cyan" if line.sink else None)
    click.echo(f"    {sanitize_for_display(line.text, _SHOWN_CHARACTERS)}")
