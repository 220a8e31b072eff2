"""The command line. Each command is a module, imported when it is called."""

from __future__ import annotations

from importlib import import_module
from typing import Final

import click

from siemrelay import __version__

COMMANDS: Final = {
    "run": "run the daemon in the foreground",
    "reload": "apply the changed configuration to the running relay",
    "check": "validate the configuration and print its effective settings",
    "test": "send one marked test event to a sink",
    "preview": "show what each sink would receive for given records",
    "status": "show the running relay's rates, backlogs and errors",
    "top": "the same, live",
    "buffer": "inspect the disk buffer, replay records, handle dead letters",
    "events": "list the known event types",
    "demo": "show the relay at work; needs no configuration",
}
"""Name → its line in `siemrelay --help`. `siemrelay.cli.NAME` has the command of that name."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"siemrelay.cli.{name}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # From the table: importing every command for its help would take a second.
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="siemrelay")
def main() -> None:
    """Forward audit events to SIEMs through a durable disk buffer.

    \b
    Try it:
      siemrelay demo
    """
