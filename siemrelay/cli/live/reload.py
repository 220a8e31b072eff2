"""`siemrelay reload`: the running relay takes the changed configuration."""

from __future__ import annotations

import os

import click

from siemrelay.cli.config_faults import exit_with_faults
from siemrelay.cli.live.control_client import directory_of, print_reload, send
from siemrelay.cli.options import config_option
from siemrelay.config.files import document_of, text_of
from siemrelay.config.substitution import variables_of
from siemrelay.core.errors import ConfigurationRefused
from siemrelay.relay.control import ReloadRequest


@click.command()
@config_option()
@click.option("--dry-run", is_flag=True, help="Print what would change; change nothing.")
@click.option("--discard-backlog", metavar="SINK", multiple=True, help="Remove this sink although "
              "records wait for it; they are not delivered.")  # fmt: skip
@click.option(
    "--environment",
    is_flag=True,
    help="Take the variables that the file refers "
    "to from this command's environment, for which systemd reads EnvironmentFile= again.",
)
def reload(config: str, dry_run: bool, discard_backlog: tuple[str, ...], environment: bool) -> None:
    """Apply the changed configuration to the running relay, all of it or none.

    The relay reads its own file again; unchanged parts keep running. With any fault nothing
    changes. Exits with 0 when the changes are made, 78 when they were refused, 69 when no relay
    runs.

    \b
    Examples:
      siemrelay reload --dry-run
      siemrelay reload
      siemrelay reload --discard-backlog old
    """
    variables: dict[str, str] = {}
    if environment:
        try:
            text = text_of(config)
            texts = [text, *document_of(text, config).included.values()]
        except ConfigurationRefused as refused:
            exit_with_faults(refused, "nothing was changed")
        names = [name for text in texts for name in variables_of(text)]
        variables = {name: os.environ[name] for name in names if name in os.environ}
    request = ReloadRequest(dry_run, list(discard_backlog), variables)
    print_reload(send(directory_of(config), request), dry_run=dry_run)
