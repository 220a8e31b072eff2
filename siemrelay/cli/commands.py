"""The command line. Each command is a module, imported when it is called."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from siemrelay import __version__
from siemrelay.cli.terminal import guard_terminal

COMMANDS: Final = {
    "run": ("run", "run the daemon in the foreground"),
    "reload": ("live.reload", "apply the changed configuration to the running relay"),
    "pause": ("live.pause", "stop delivering to a sink; its records wait"),
    "resume": ("live.pause", "deliver to a paused sink again"),
    "check": ("check", "check the configuration and show what it sets"),
    "test": ("test", "send one marked test event to a sink"),
    "tap": ("live.tap", "show the running relay's events live, as decoded and as sent"),
    "preview": ("preview", "show what each sink would receive for given records"),
    "status": ("live.status", "show the running relay's rates, backlogs and errors"),
    "top": ("live.top", "show the same live, refreshed every second"),
    "buffer": ("buffer.buffer", "inspect the disk buffer, replay records, retry dead letters"),
    "init": ("setup.init", "write a first configuration from a few answers"),
    "completion": ("setup.completion", "print the shell's completion of commands and options"),
    "schema": ("setup.schema", "print the configuration's JSON Schema, for editors"),
    "install": ("setup.install", "install the systemd service, its user and directories"),
    "uninstall": ("setup.uninstall", "remove the service; keep configuration and records"),
    "verify": ("proof.verify", "verify a SIEM's export: nothing missing, changed or added"),
    "seal": ("proof.seal", "manage the signing keys and sealed streams of sinks with `seal:`"),
    "events": ("events", "list the known event types"),
    "demo": ("demo", "show the relay at work; needs no configuration"),
}
"""Name → the module in `siemrelay.cli` with the command of that name, its line in `--help`."""


_ELSEWHERE: Final = {
    **dict.fromkeys(("validate", "lint", "config", "configtest"), "check"),
    **dict.fromkeys(("start", "daemon", "serve"), "run"),
    "help": "--help", "version": "--version",
    **{name: f"buffer {name}" for name in ("replay", "dead-letters", "salvage")},
}  # fmt: skip
"""Commands as other programs call them, and those of `buffer` without it."""


def _placed(error: click.NoSuchOption) -> click.UsageError:
    """The error about a `-c` in front of a command, with its place; any other as it is."""
    at = error.ctx
    if at is None or not isinstance(at.command, click.Group) or error.option_name not in _FILE:
        return error
    example = f"{at.command_path} {at.command.list_commands(at)[0]} -c FILE"
    hint = f"{error.message.rstrip('.')} here: it stands behind the command, as in `{example}`"
    return click.UsageError(hint, at)


_FILE: Final = ("-c", "--config")


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _ = COMMANDS[name]
        command: click.Command = getattr(import_module(f"siemrelay.cli.{module}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches  # only for this fault: keeps the start quick

            near = [_ELSEWHERE[args[0]]] if args[0] in _ELSEWHERE else get_close_matches(
                args[0], COMMANDS, 1
            )  # fmt: skip
            if not near:
                raise
            hint = f"{error.message.rstrip('.')}; did you mean `{near[0]}`?"
            raise click.UsageError(hint, error.ctx) from error

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise _placed(error) from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.NoSuchOption as error:
            raise _placed(error) from error
        except click.UsageError as error:
            if not re.search(r"^Got unexpected extra argument.*\.ya?ml\b", error.message):
                raise
            hint = f"{error.message}; a configuration is named with -c FILE"
            raise click.UsageError(hint, error.ctx) from error

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # From the table, as the help: a shell asks at every press of the tab key.
        found = [
            CompletionItem(name, help=line)
            for name, (_, line) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # From the table: importing every command for its help would take a second.
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="siemrelay")
def main() -> None:
    """Forward audit events to SIEMs through a durable disk buffer.

    \b
    Try it:
      siemrelay demo
    """
    # `top` moves the cursor, and cleans what it shows; a sink may write bytes to standard output.
    if click.get_current_context().invoked_subcommand not in ("top", "run"):
        guard_terminal()
