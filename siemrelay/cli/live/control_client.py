"""How commands talk to a running relay through its control socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import click
import msgspec

from siemrelay.cli.config_faults import exit_with_faults
from siemrelay.cli.options import advice
from siemrelay.cli.refusal import refuse
from siemrelay.config.endpoint_address import state_dir
from siemrelay.core.errors import ConfigurationRefused
from siemrelay.relay.control import (
    Command,
    ControlAnswer,
    ControlLine,
    ControlRequest,
    possible_directories,
    real_path,
    short_path,
)

# A reload waits until the connections of stopped sinks are closed, which the relay bounds.
_ANSWER_S: Final = 120.0
_ANSWER_BYTES: Final = 16 << 20


def directory_of(config: str) -> Path:
    """The state directory that the file names; exits with 78 if the file cannot be read."""
    try:
        return state_dir(config)
    except ConfigurationRefused as refused:
        exit_with_faults(refused, "no relay was asked")


def send(directory: Path, command: Command) -> ControlAnswer:
    """Send a command to the relay on that state directory; exits with 69 if there is none."""
    for line in follow(directory, command, _ANSWER_S):
        if isinstance(line, ControlAnswer):
            return line
    raise AssertionError("`follow` ends with an ControlAnswer or exits")


def follow(
    directory: Path, command: Command, silence_s: float | None, person: str | None = None
) -> Iterator[ControlLine]:
    """Send a command and yield the lines of its answer; exits with 69 if no relay answers.

    A relay that is silent for longer than `silence_s` counts as dead. `person` gives the command;
    the relay believes it from root.
    """
    person = person or os.environ.get("SUDO_USER", "")
    request = ControlRequest(command, real_path(directory), person)
    data = msgspec.json.encode(request) + b"\n"
    why, forbidden = "there is no control socket", False
    for candidate in possible_directories(directory):
        try:
            with (
                short_path(candidate) as path,
                closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as sock,
            ):
                sock.settimeout(silence_s)
                sock.connect(path)
                sock.sendall(data)
                with sock.makefile("rb") as lines:
                    while True:
                        line = msgspec.json.decode(lines.readline(_ANSWER_BYTES), type=ControlLine)
                        if isinstance(line, ControlAnswer) and line.elsewhere:
                            break
                        yield line
                        if isinstance(line, ControlAnswer):
                            return
        except PermissionError:
            forbidden = True
        except FileNotFoundError:
            pass
        except (OSError, msgspec.DecodeError) as error:
            why = getattr(error, "strerror", None) or "no answer"
    if forbidden:
        refuse(
            f"no permission to control the relay on {directory}: run this as root or in its group",
            os.EX_UNAVAILABLE,
        )
    refuse(f"no relay runs on {directory} ({why}); -c FILE names its configuration",
           os.EX_UNAVAILABLE)  # fmt: skip


def print_answer(answer: ControlAnswer, refused_code: int = os.EX_USAGE) -> None:
    """Print the lines; exits with `refused_code` if the relay refused."""
    for line in answer.plan:
        click.echo(line)
    for line in answer.lines:
        click.secho(advice(line), err=not answer.done, fg=None if answer.done else "red")
    if not answer.done:
        raise SystemExit(refused_code)


def print_reload(answer: ControlAnswer, *, dry_run: bool) -> None:
    """As `print_answer` for a reload; exits with 78 if the relay refused."""
    if not answer.done:
        answer.lines.append(
            "a reload would be refused, and change nothing" if dry_run
            else "the relay goes on with the configuration that it has"
        )  # fmt: skip
    print_answer(answer, os.EX_CONFIG)
