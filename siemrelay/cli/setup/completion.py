"""`siemrelay completion`: the script with which a shell completes commands and options."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import ShellComplete, get_completion_class

from siemrelay.cli.commands import main

SHELLS: Final = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script by which SHELL completes siemrelay's commands and options.

    `siemrelay install` puts the scripts where the shells look for them.

    \b
    Examples:
      source <(siemrelay completion bash)
      siemrelay completion fish > ~/.config/fish/completions/siemrelay.fish
    """
    click.echo(script(shell), nl=False)


def script(shell: str) -> str:
    """The script of one of SHELLS. Needs no shell."""
    kind = get_completion_class(shell)
    assert kind is not None
    made = kind(main, {}, "siemrelay", "_SIEMRELAY_COMPLETE")
    # The method of bash's own class first runs bash, to ask for its version.
    return ShellComplete.source(made).strip() + "\n"
