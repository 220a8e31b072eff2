"""`siemrelay uninstall`: takes the service away; what it holds and how it is configured stay."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import Final

import click

from siemrelay.cli.setup.install import (
    UNIT,
    require,
    run_all,
    setup_options,
    systemd_runs,
    write_files,
)
from siemrelay.cli.setup.system_files import Manifest, SystemFile
from siemrelay.config.endpoint_address import state_dir
from siemrelay.core.errors import ConfigurationRefused
from siemrelay.core.own_commands import DEFAULT_FILE

_LOGS: Final = Path("/var/log/siemrelay")
_DROP_INS: Final = Path(f"/etc/systemd/system/{UNIT}.d")


@click.command()
@setup_options
def uninstall(dry_run: bool, root: Path, prefix: Path) -> None:
    """Stop the service and remove what `siemrelay install` wrote.

    The configuration, the credentials, the buffer with its undelivered records and the user stay;
    the last lines say where they are. So do files that somebody has changed.

    \b
    Examples:
      siemrelay uninstall --dry-run
      siemrelay uninstall
    """
    require(root, dry_run=dry_run)
    manifest, here = Manifest(prefix, root), root == Path("/")
    if not manifest.digests:
        click.echo(f"nothing to remove: there is no {manifest.path}")
        return
    if here and systemd_runs():
        run_all(iter([["systemctl", "disable", "--now", UNIT]]), dry_run=dry_run)
    folders = {path.parent for path in (*manifest.digests, manifest.path)}
    write_files([], manifest, root, dry_run=dry_run)
    if not dry_run:
        manifest.digests.clear()
        manifest.save()
        for folder in folders:
            if "siemrelay" in folder.name:  # shared ones belong to others
                with contextlib.suppress(OSError):  # not empty: something was left alone
                    SystemFile(folder).below(root).rmdir()
    if here:
        if systemd_runs():
            run_all(iter([["systemctl", "daemon-reload"]]), dry_run=dry_run)
        _say_what_stays()


def _say_what_stays() -> None:
    try:
        state = state_dir(DEFAULT_FILE)
    except ConfigurationRefused:
        state = Path("/var/lib/siemrelay")
    places = (Path(DEFAULT_FILE).parent, state, _LOGS, _DROP_INS)
    kept = [path for path in places if path.exists()]
    click.echo("\nKept, with undelivered records, configuration and credentials:")
    for path in kept:
        click.echo(f"  {path}")
    click.echo("To delete them and the user for good:")
    click.echo(f"  rm -r {shlex.join(map(str, kept))} && userdel siemrelay")
