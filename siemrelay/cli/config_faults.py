"""How commands report a faulty configuration."""

from __future__ import annotations

import json
import os
from collections.abc import Sized
from dataclasses import asdict
from typing import NoReturn

import click

from siemrelay.cli.options import advice
from siemrelay.core.errors import ConfigurationRefused, Fault
from siemrelay.telemetry.log import journal_prefix


def exit_with_faults(
    refused: ConfigurationRefused, outcome: str = "", *, as_json: bool = False
) -> NoReturn:
    """Print every fault, one a line on standard error (or as JSON on standard output); exit 78.

    `outcome` says what the command therefore did not do.
    """
    if as_json:
        faults = [fault_as_json(fault, refused.file) for fault in refused.faults]
        click.echo(json.dumps({"file": refused.file, "faults": faults}, indent=2))
    else:
        for fault in refused.faults:
            click.secho(
                journal_prefix("error") + advice(fault.located(refused.file)), err=True, fg="red"
            )
        count = plural(refused.faults, "fault")
        click.echo(f"{count}; {outcome}" if outcome else count, err=True)
    raise SystemExit(os.EX_CONFIG)


def fault_as_json(fault: Fault, file: str) -> dict[str, object]:
    """A fault or warning for a program; `file` is the main configuration file."""
    return {**asdict(fault), "file": fault.file or file}


def plural(things: Sized, name: str) -> str:
    """`1 fault`, `2 faults`."""
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"
