"""How a command ends that cannot do what it was asked for."""

from __future__ import annotations

from typing import NoReturn

import click


def refuse(message: str, code: int) -> NoReturn:
    """Write the message to standard error, in red on a terminal, and exit with the code."""
    click.secho(message, err=True, fg="red")
    raise SystemExit(code)
