"""The command line: each command is a module of its own, imported when it is called."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any, Final

import click

from siemrelay import __version__

COMMANDS: Final = {
    "run": "the daemon, in the foreground",
    "check": "the configuration's faults, or what it comes to",
    "test": "send one marked test event to a sink",
    "preview": "what each sink would receive",
    "status": "how the running relay does: rates, backlogs, what is wrong",
    "top": "the same, live",
    "buffer": "look into the disk buffer, send records again, see what peers refused",
    "events": "the known event types",
    "demo": "the whole thing on this machine, with nothing to install or configure",
}
"""Name → the line in `siemrelay --help`. `siemrelay.cli.NAME` has the command of that name."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        if name == "run":
            _load_log()
        command: click.Command = getattr(import_module(f"siemrelay.cli.{name}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # From the table: importing every command to ask for its help would take a second.
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


class _Later(ModuleType):
    """Stands for a module until somebody asks it for something."""

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)


def _load_log() -> None:
    """Load the log's library without what it loads for others only: a sixth of a start.

    Its rich tracebacks would show local variables, with the secrets in them; asyncio has no part
    in a program on trio. Checked by test_a_start_loads_nothing_that_a_daemon_does_not_use.
    """
    instead: dict[str, ModuleType | None] = {"rich": None, "asyncio": _Later("asyncio")}
    aside = {name: sys.modules.get(name) for name in instead}
    sys.modules.update(instead)  # type: ignore[arg-type]  # None: as if it were not installed
    try:
        import_module("structlog")
    finally:
        for name, module in aside.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="siemrelay")
def main() -> None:
    """Forward audit events to SIEMs through a durable disk buffer.

    \b
    Try it:
      siemrelay demo
    """
