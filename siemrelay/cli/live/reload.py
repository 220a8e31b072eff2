"""`siemrelay reload`: the running relay takes the changed configuration."""

from __future__ import annotations

import click

from siemrelay.cli.live.control_client import directory_of, print_reload, send
from siemrelay.cli.options import config_option
from siemrelay.relay.control import ReloadRequest


@click.command()
@config_option()
@click.option("--dry-run", is_flag=True, help="Print what would change; change nothing.")
@click.option("--discard-backlog", metavar="SINK", multiple=True, help="Remove this sink although "
              "records wait for it; they are not delivered.")  # fmt: skip
def reload(config: str, dry_run: bool, discard_backlog: tuple[str, ...]) -> None:
    """Apply the changed configuration to the running relay, all of it or none.

    The relay reads its own file again; parts that have not changed go on undisturbed. With any
    fault nothing changes. Exits with 0 when the changes are made, 78 when they were refused, 69
    when no relay runs.

    \b
    Examples:
      siemrelay reload --dry-run
      siemrelay reload
      siemrelay reload --discard-backlog old
    """
    print_reload(send(directory_of(config), ReloadRequest(dry_run, list(discard_backlog))))
