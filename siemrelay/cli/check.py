"""`siemrelay check`: the configuration's faults, or what it comes to."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import NoReturn

import click

from siemrelay.cli.options import config_option, json_option
from siemrelay.cli.tables import print_table
from siemrelay.config.effective import (
    Setting,
    relay_settings,
    remarks,
    sink_settings,
    source_settings,
)
from siemrelay.config.load import Loaded, load
from siemrelay.errors import ConfigurationRefused, Fault


@click.command()
@config_option()
@json_option()
def check(config: str, as_json: bool) -> None:
    """Read the configuration and print each source and sink with its effective settings.

    Prints every fault with its line and column and exits with 78 if there is one. Nothing is
    started, connected to or changed. Secrets are shown as they are written in the file, or as ***.

    \b
    Example:
      siemrelay check -c /etc/siemrelay/siemrelay.yaml
    """
    try:
        loaded = load(config)
    except ConfigurationRefused as refused:
        refuse(refused, as_json=as_json)
    if as_json:
        click.echo(json.dumps(_as_json(loaded), indent=2))
        return
    _print("relay", relay_settings(loaded))
    for name in loaded.config.sources:
        _print(f"source {name}", source_settings(loaded, name))
    for name in loaded.config.sinks:
        _print(f"sink {name}", sink_settings(loaded, name))
    for remark in remarks(loaded):
        click.secho(f"warning: {remark.located(loaded.file)}", err=True, fg="yellow")
    counts = f"{_count(loaded.config.sources, 'source')}, {_count(loaded.config.sinks, 'sink')}"
    click.echo(f"{loaded.file}: no faults ({counts})")


def refuse(refused: ConfigurationRefused, *, as_json: bool = False) -> NoReturn:
    """Print every fault, one a line on standard error (or as JSON on standard output); exit 78."""
    if as_json:
        faults = [asdict(fault) for fault in refused.faults]
        click.echo(json.dumps({"file": refused.file, "faults": faults}, indent=2))
    else:
        for fault in refused.faults:
            click.secho(fault.located(refused.file), err=True, fg="red")
        click.echo(f"{_count(refused.faults, 'fault')}; nothing was changed", err=True)
    sys.exit(os.EX_CONFIG)


def _print(title: str, settings: list[Setting]) -> None:
    print_table(title, ("setting", "value", "from"), [(s.key, s.text, s.origin) for s in settings])
    click.echo()


def _count(things: object, word: str) -> str:
    number = len(things)  # type: ignore[arg-type]  # anything that has a length
    return f"{number} {word}{'' if number == 1 else 's'}"


def _as_json(loaded: Loaded) -> dict[str, object]:
    def plain(settings: list[Setting]) -> dict[str, object]:
        return {s.key: {"value": s.value, "from": s.origin} for s in settings}

    def located(remark: Fault) -> dict[str, object]:
        return asdict(remark)

    config = loaded.config
    return {
        "file": loaded.file,
        "faults": [],
        "warnings": [located(remark) for remark in remarks(loaded)],
        "relay": plain(relay_settings(loaded)),
        "sources": {name: plain(source_settings(loaded, name)) for name in config.sources},
        "sinks": {name: plain(sink_settings(loaded, name)) for name in config.sinks},
    }
