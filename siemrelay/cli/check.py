"""`siemrelay check`: the configuration's faults, or its settings."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import click

from siemrelay.buffer.state_dir import running_process
from siemrelay.cli.config_faults import exit_with_faults, fault_as_json, plural
from siemrelay.cli.live.control_client import print_reload, send
from siemrelay.cli.options import config_option, json_option
from siemrelay.cli.record_files import contents
from siemrelay.cli.tables import print_table
from siemrelay.config.checks.host import resource_warnings
from siemrelay.config.checks.missing import missing_resources
from siemrelay.config.checks.paths import exists
from siemrelay.config.checks.service import check_as_service
from siemrelay.config.effective import (
    Setting,
    relay_settings,
    remarks,
    sink_settings,
    source_settings,
)
from siemrelay.config.load import Loaded, load
from siemrelay.config.service_unit import ServiceUnit, is_service_config, service_unit
from siemrelay.config.yaml_document import in_order
from siemrelay.core.errors import ConfigurationRefused, Fault
from siemrelay.relay.control import ReloadRequest


class _RecordFile(click.File):
    """A file of records; a configuration is named by an option."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if str(value).endswith((".yaml", ".yml")):
            # The command line adds how it is named.
            raise click.UsageError(f"Got unexpected extra argument ({value})")
        return super().convert(value, param, ctx)


@click.command()
@config_option()
@click.option("--against-running", is_flag=True, help="Also print what a reload would change.")
@click.option("--all", "every", is_flag=True, help="Also print the settings at their defaults.")
@json_option()
@click.argument("records", metavar="[FILE]", type=_RecordFile("rb"), required=False)
def check(
    config: str, against_running: bool, every: bool, as_json: bool, records: BinaryIO | None
) -> None:
    """Check the configuration and show what it sets.

    Prints every fault with its line and column, and exits with 78 if there is one. It connects to
    nothing and changes nothing. It does look for the files and packages that the configuration
    needs, at the rights of this user, and whether the ports are free; a fault that depends on
    another user is a warning. Run by root on the service's own file, it looks as the service's
    user. Secrets are shown as the file writes them, or as ***.

    With FILE, a file of records, it only proposes the decoder that fits, with the lines of the
    configuration.

    \b
    Examples:
      siemrelay check -c /etc/siemrelay/siemrelay.yaml
      siemrelay check --against-running
      siemrelay check /var/log/audit/audit.log
    """
    if records is not None:
        _propose(records)
        return
    try:
        loaded = load(config, need_credentials=False)
    except ConfigurationRefused as refused:
        exit_with_faults(refused, as_json=as_json)
    faults, uncertain = missing_resources(loaded)
    unit = service_unit()
    if unit is not None and not is_service_config(unit, config):
        unit = None
    user = unit.user if unit and not os.geteuid() else None
    if unit and user:
        # Root can read every credential that the service gets.
        faults = in_order(list({*faults, *_as_service(loaded, unit), *loaded.unread}))
    if faults:
        exit_with_faults(ConfigurationRefused(loaded.file, faults), as_json=as_json)
    warnings = in_order(
        [*remarks(loaded), *uncertain, *_resource_warnings(loaded, unit), *loaded.unread]
    )
    if as_json:
        click.echo(json.dumps(_as_json(loaded, warnings), indent=2))
        return
    tables = {"relay": relay_settings(loaded)}
    for name in loaded.config.sources:
        tables[f"source {name}"] = source_settings(loaded, name)
    for name in loaded.config.sinks:
        tables[f"sink {name}"] = sink_settings(loaded, name)
    _print(tables, every=every)
    for remark in warnings:
        click.secho(f"warning: {remark.located(loaded.file)}", err=True, fg="yellow")
    parts = f"{plural(loaded.config.sources, 'source')}, {plural(loaded.config.sinks, 'sink')}"
    if against_running:
        request = ReloadRequest(dry_run=True)
        print_reload(send(loaded.config.state_dir, request), dry_run=True)
    seen = f", as user {user} sees it" if user else ""
    if unit and not user:
        seen = f"; root sees what the service's user {unit.user} may do"
    click.echo(f"{loaded.file}: 0 faults, {plural(warnings, 'warning')} ({parts}){seen}")


def _propose(records: BinaryIO) -> None:
    from siemrelay.cli.proposals import SAMPLE_BYTES, proposal, shown_proposal  # builds decoders

    # A pipe has a name in angle brackets.
    path = "FILE" if records.name.startswith("<") else str(Path(records.name).absolute())
    sample = b""
    for piece in contents(records):
        sample += piece
        if len(sample) >= SAMPLE_BYTES:
            break
    found = proposal(sample, whole=len(sample) < SAMPLE_BYTES)
    if found is None:
        raise click.ClickException(f"{records.name} has no records")
    click.echo("\n".join(shown_proposal(found, None, path)))


def _as_service(loaded: Loaded, unit: ServiceUnit) -> list[Fault]:
    running = running_process(loaded.config.state_dir) is not None
    try:
        return check_as_service(loaded, unit, running=running)
    except LookupError:
        return [Fault(f"there is no user {unit.user}, as whom the unit runs it: siemrelay install")]


def _resource_warnings(loaded: Loaded, unit: ServiceUnit | None) -> list[Fault]:
    """`unit` runs the relay with this file; without one, a process of this user's would."""
    state_dir = loaded.config.state_dir
    running: bool | None = running_process(state_dir) is not None
    if not running and exists(state_dir) and not os.access(state_dir, os.X_OK):
        running = None  # its lock is not for this user to see
    tried = unit is not None and (unit.sockets or not os.geteuid())
    return resource_warnings(loaded, as_this_user=unit is None, ports=not tried, running=running,
                  made=unit.made if unit else ())  # fmt: skip


def _print(tables: dict[str, list[Setting]], *, every: bool) -> None:
    hidden = 0
    for title, settings in tables.items():
        shown = [s for s in settings if every or s.essential]
        hidden += len(settings) - len(shown)
        print_table(title, ("setting", "value", "from"), [(s.key, s.text, s.origin) for s in shown])
        click.echo()
    if hidden:
        click.echo(f"{hidden} other settings are at their defaults: --all shows them\n")


def _as_json(loaded: Loaded, warnings: list[Fault]) -> dict[str, object]:
    def plain(settings: list[Setting]) -> dict[str, object]:
        return {s.key: {"value": s.value, "from": s.origin} for s in settings}

    config = loaded.config
    return {
        "file": loaded.file,
        "faults": [],
        "warnings": [fault_as_json(warning, loaded.file) for warning in warnings],
        "relay": plain(relay_settings(loaded)),
        "sources": {name: plain(source_settings(loaded, name)) for name in config.sources},
        "sinks": {name: plain(sink_settings(loaded, name)) for name in config.sinks},
    }
