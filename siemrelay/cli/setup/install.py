"""`siemrelay install`: the service, its user and its directories on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click

from siemrelay.cli.refusal import refuse
from siemrelay.cli.setup.system_files import (
    DROP_INS,
    Manifest,
    SystemFile,
    found,
    system_files,
)
from siemrelay.core.own_commands import DEFAULT_FILE

UNIT: Final = "siemrelay.service"

# The unit hides these from the service (ProtectHome=, PrivateTmp=).
_HIDDEN: Final = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")

_BEFORE_OURS: Final = Path("/etc/systemd/system") / UNIT
_PACKAGED: Final = (Path("/usr/lib/systemd/system") / UNIT, Path("/lib/systemd/system") / UNIT)


def setup_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--dry-run`, `--root` and `--prefix`: the command gets `dry_run`, `root` and `prefix`."""
    for option in (
        click.option("--prefix", metavar="DIR", type=click.Path(path_type=Path),
                     default=Path("/usr/local"), show_default=True,
                     help="Where the files go; packages use /usr."),
        click.option("--root", metavar="DIR", type=click.Path(path_type=Path), default=Path("/"),
                     help="Handle only the files, below DIR: for packages and images."),
        click.option("--dry-run", is_flag=True, help="Print what would be done; do nothing."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command()
@setup_options
@click.option("--low-ports/--no-low-ports", default=None,
              help="Let the service listen on ports below 1024, like 514.")  # fmt: skip
@click.option("--read-all-files/--no-read-all-files", default=None,
              help="Let the service read every file, like audit logs of root.")  # fmt: skip
@click.option("--program", metavar="FILE", help="The relay's command. [default: this one]")
def install(
    dry_run: bool, root: Path, prefix: Path, low_ports: bool | None, read_all_files: bool | None,
    program: str | None,
) -> None:  # fmt: skip
    """Install the systemd service with its user and directories; prints every step.

    Run it as root, again after every upgrade: files that are up to date stay as they are, and so
    do those that somebody has changed. It writes no configuration, and neither enables nor starts
    the service.

    \b
    Examples:
      siemrelay install --dry-run
      siemrelay install
      siemrelay install --low-ports
    """
    program = program or _this_program()
    manifest = Manifest(prefix, root)
    require(root, dry_run=dry_run)
    for obstacle in _obstacles(program, prefix) if root == Path("/") else ():
        if not dry_run:
            refuse(obstacle, os.EX_USAGE)
        click.secho(f"warning: this would be refused: {obstacle}", err=True, fg="yellow")
    chosen = _drop_ins(manifest, (low_ports, read_all_files))
    wanted = system_files(program, prefix, chosen)
    changed = write_files(wanted, manifest, root, dry_run=dry_run)
    if root != Path("/"):
        return
    run_all(_commands(wanted, reload=changed), dry_run=dry_run)
    _say_next(restart=changed and _is_active())


def require(root: Path, *, dry_run: bool) -> None:
    """Exit with 77 if this user cannot do it."""
    if os.geteuid() and root == Path("/") and not dry_run:
        refuse("only root can do this; --dry-run shows what would be done", os.EX_NOPERM)


def _this_program() -> str:
    program = Path(sys.prefix) / "bin/siemrelay"
    if not program.exists():
        refuse(f"there is no {program}: install the package there (pip install .), or name "
               "the command with --program FILE", os.EX_USAGE)  # fmt: skip
    return str(program)


def _obstacles(program: str, prefix: Path) -> Iterator[str]:
    """Obstacles to the service on this machine, each with its remedy."""
    interpreter = str(Path(sys.executable).resolve())
    unseen = [path for path in (program, interpreter) if path.startswith(_HIDDEN)]
    if unseen:
        hidden = ", ".join(name.rstrip("/") for name in _HIDDEN)
        yield (f"the service cannot run {unseen[0]}: it sees nothing below {hidden}. Make the "
               "virtual environment in /opt/siemrelay, with the system's Python: /usr/bin/python3 "
               "-m venv --clear /opt/siemrelay && /opt/siemrelay/bin/pip install .")  # fmt: skip
    packaged = next((unit for unit in _PACKAGED if unit.exists()), None)
    if packaged is not None and prefix != Path("/usr"):
        yield f"{packaged} is there already: a package has installed the service"
    if shutil.which("systemd-sysusers") is None:
        yield ("systemd-sysusers is missing: this machine has no systemd; run `siemrelay run` "
               "under another supervisor")  # fmt: skip


def _drop_ins(manifest: Manifest, asked: tuple[bool | None, ...]) -> Mapping[str, bool]:
    """The options given, or else those of an earlier `install`."""
    before = {path.name for path in manifest.digests}
    return {
        name: name in before if choice is None else choice
        for name, choice in zip(DROP_INS, asked, strict=True)
    }


def write_files(wanted: list[SystemFile], manifest: Manifest, root: Path, *, dry_run: bool) -> bool:
    """Write what differs and remove what an earlier `install` wrote and is not wanted any more.

    Files that somebody has changed are left alone. Returns whether anything changed.
    """
    changes = [*_removals(wanted, manifest, root), *_writes(wanted, manifest, root)]
    for text, act in changes:
        click.echo(text)
        if act is not None and not dry_run:
            act()
    if not dry_run:
        manifest.save()
    return any(act is not None for _, act in changes)


_Step = tuple[str, Callable[[], None] | None]


def _writes(wanted: list[SystemFile], manifest: Manifest, root: Path) -> Iterator[_Step]:
    for file in wanted:
        there = found(file.path, root)

        def write(file: SystemFile = file) -> None:
            file.write(root)
            manifest.digests[file.path] = file.digest

        if there == file:
            manifest.digests[file.path] = file.digest
            yield f"as it should be: {file.path}", None
        elif there is None:
            yield f"write {file.path}", write
        elif manifest.wrote(there):
            yield f"update {file.path}", write
        else:
            yield f"left alone, as it was changed here: {file.path}", None


def _removals(wanted: list[SystemFile], manifest: Manifest, root: Path) -> Iterator[_Step]:
    for path in [*manifest.digests]:
        if path in [file.path for file in wanted]:
            continue
        there = found(path, root)
        if there is not None and not manifest.wrote(there):
            yield f"left alone, as it was changed here: {path}", None
            continue

        def remove(path: Path = path) -> None:
            SystemFile(path).below(root).unlink(missing_ok=True)
            del manifest.digests[path]

        yield f"remove {path}", remove


def _commands(wanted: list[SystemFile], *, reload: bool) -> Iterator[list[str]]:
    for program, folder in (("systemd-sysusers", "sysusers.d"), ("systemd-tmpfiles", "tmpfiles.d")):
        (path,) = (str(file.path) for file in wanted if file.path.parent.name == folder)
        yield [program, *(["--create"] if program == "systemd-tmpfiles" else []), path]
    if Path("/sys/fs/selinux/enforce").exists():
        # pip and this command write with the labels of the directories, not of the policy.
        yield ["restorecon", "-R", sys.prefix, *(str(file.path) for file in wanted)]
    if reload and systemd_runs():
        yield ["systemctl", "daemon-reload"]


def systemd_runs() -> bool:
    """Whether systemd is this machine's init (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def run_all(commands: Iterator[list[str]], *, dry_run: bool) -> None:
    """Print and run each command; exits with 75 at the first that fails, which says why itself."""
    for command in commands:
        click.echo(f"run {' '.join(command)}")
        if not dry_run and subprocess.run(command, check=False).returncode:
            refuse(f"{command[0]} failed; after fixing that, run this again", os.EX_TEMPFAIL)


def _is_active() -> bool:
    command = ["systemctl", "--quiet", "is-active", UNIT]
    return systemd_runs() and subprocess.run(command, check=False).returncode == 0


def _say_next(*, restart: bool) -> None:
    if _BEFORE_OURS.exists():
        click.secho(f"warning: systemd takes {_BEFORE_OURS} instead of what was installed; "
                    "remove it to use this version's", err=True, fg="yellow")  # fmt: skip
    config = Path(DEFAULT_FILE)
    first = [] if config.exists() else ["siemrelay init"]
    last = "restart" if restart else "enable --now"
    steps = [*first, "siemrelay check", f"systemctl {last} siemrelay"]
    click.echo(f"\nConfiguration: {config}{'' if config.exists() else ' (none yet)'}. Next:")
    for step in steps:
        click.echo(f"  {step}")
