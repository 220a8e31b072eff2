"""`siemrelay buffer check` and `salvage`: what can be read of a damaged buffer, and saving it."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import click

from siemrelay.buffer import salvage as salvaging
from siemrelay.buffer.salvage import Survey, put_in_place, survey
from siemrelay.buffer.state_dir import buffer_file, lock_state_dir, running_process
from siemrelay.cli.buffer.open_buffer import load_or_exit
from siemrelay.cli.options import advice, config_option, json_option
from siemrelay.cli.refusal import refuse
from siemrelay.cli.tables import print_table
from siemrelay.core.errors import SiemrelayError, StartRefused

# Gaps that a person reads; --json has them all.
_SHOWN: Final = 20


@click.command(short_help="verify that the buffer is intact and can be read")
@config_option()
@json_option()
def check(config: str, as_json: bool) -> None:
    """Verify the buffer: is the file intact, which records can be read, what would each sink lose?

    Reads everything and changes nothing. Beside a running relay a damaged file is only reported;
    stop the relay to see what can be read of it. Exits with 74 when something is damaged or
    missing.

    \b
    Example:
      siemrelay buffer check
    """
    state_dir = load_or_exit(config).config.state_dir
    path = buffer_file(state_dir)
    with _failures(path):
        _must_exist(path)
        running = running_process(state_dir) is not None
        found = survey(path, quiet=not running)
    if as_json:
        click.echo(json.dumps(_report(path, found), indent=2))
    else:
        _print(path, found)
        if found.faults and running:
            click.echo("stop the relay and check again to see what can be read")
        elif not found.healthy:
            click.echo(advice("`siemrelay buffer salvage` saves what can be read into a new file"))
    raise SystemExit(0 if found.healthy else os.EX_IOERR)


@click.command(short_help="make a new buffer of all that a damaged one still holds")
@config_option()
@json_option()
def salvage(config: str, as_json: bool) -> None:
    """Make a new buffer of everything that can be read of a damaged one; the relay must not run.

    The damaged file is kept beside it as buffer.db.damaged-TIME. Cursors, positions and counts are
    kept where they are consistent. Needs as much room as the buffer takes. The next start of the
    relay logs which records are missing, and for which sinks.

    \b
    Example:
      systemctl stop siemrelay && siemrelay buffer salvage && systemctl start siemrelay
    """
    state_dir = load_or_exit(config).config.state_dir
    path = buffer_file(state_dir)
    with _failures(path):
        _must_exist(path)
        lock = lock_state_dir(state_dir)
        try:
            new = path.with_name(f"{path.name}.salvaged")
            try:
                found = salvaging.salvage(path, new)
                kept = put_in_place(path, new)
            except BaseException:
                with suppress(OSError):
                    new.unlink(missing_ok=True)
                raise
        finally:
            os.close(lock)
    if as_json:
        click.echo(json.dumps({**_report(path, found), "damaged_file": str(kept)}, indent=2))
    else:
        _print(path, found)
        click.echo(f"the damaged file is kept as {kept}; remove it when it is not needed")


def _must_exist(path: Path) -> None:
    if not path.is_file():
        raise StartRefused(f"there is no buffer at {path}")
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        raise StartRefused(
            f"{path} is on a read-only file system, and SQLite must write beside it: copy the "
            "directory elsewhere (cp -a), and set `state_dir`"
        )


@contextmanager
def _failures(path: Path) -> Iterator[None]:
    try:
        yield
    except StartRefused as error:
        refuse(f"siemrelay: {error}", os.EX_TEMPFAIL)
    except (OSError, sqlite3.Error, SiemrelayError) as error:
        refuse(f"siemrelay: {path}: {error}", os.EX_IOERR)


def _report(path: Path, found: Survey) -> dict[str, Any]:
    return {
        "file": str(path), "healthy": found.healthy, "faults": found.faults,
        "records": found.records, "end": found.end, "dead_letters": found.dead_letters,
        "positions": found.positions,
        "gaps": [{"from": gap.first, "to": gap.last, "state": gap.state} for gap in found.gaps],
        "sinks": [{"sink": name, "next_sequence": cursor.next_sequence,
                   "waiting": found.end - cursor.next_sequence,
                   "unreadable": found.unreadable(name)}
                  for name, cursor in found.cursors.items()],
    }  # fmt: skip


def _print(path: Path, found: Survey) -> None:
    click.echo(f"{path}: {'healthy' if found.healthy else 'damaged'}")
    for fault in found.faults:
        click.echo(f"  {fault}")
    click.echo(f"can be read: records {found.records:,}, positions {found.positions:,}, "
               f"dead letters {found.dead_letters:,}")  # fmt: skip
    for gap in found.gaps[:_SHOWN]:
        click.echo(f"  records {gap.first:,} to {gap.last:,} are {gap.state}")
    if len(found.gaps) > _SHOWN:
        click.echo(f"  and {len(found.gaps) - _SHOWN:,} more gaps; --json has them all")
    if not found.cursors:
        click.echo("no sink's cursor can be read: each begins anew, as its `start_at` says")
        return
    click.echo()
    print_table("", ("sink", "next record", "waiting", "of them unreadable"), [
        [name, f"{cursor.next_sequence:,}", f"{found.end - cursor.next_sequence:,}",
         f"{found.unreadable(name):,}"]
        for name, cursor in found.cursors.items()
    ])  # fmt: skip
