"""How commands talk to a running relay through its control socket."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from pathlib import Path
from typing import Final, NoReturn

import click
import msgspec

from siemrelay.relay.control import ControlAnswer, ReloadRequest, short_path

# A reload waits until the connections of stopped sinks are closed, which the relay bounds.
_ANSWER_S: Final = 120.0
_ANSWER_BYTES: Final = 4 << 20


def send(directory: Path, request: ReloadRequest) -> ControlAnswer:
    """Send a request to the relay on that state directory; exits with 69 if there is none."""
    try:
        with (
            short_path(directory) as path,
            closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as sock,
        ):
            sock.settimeout(_ANSWER_S)
            sock.connect(path)
            sock.sendall(msgspec.json.encode(request) + b"\n")
            with sock.makefile("rb") as answer:
                return msgspec.json.decode(answer.readline(_ANSWER_BYTES), type=ControlAnswer)
    except PermissionError:
        _exit(f"no permission to control the relay on {directory}; run as root")
    except (OSError, msgspec.DecodeError) as error:
        why = getattr(error, "strerror", None) or "no answer"
        _exit(f"no relay runs on {directory} ({why}); -c FILE names its configuration")


def print_answer(answer: ControlAnswer) -> None:
    """Print the lines; exits with 78 if the relay refused."""
    for line in answer.lines:
        click.secho(line, err=not answer.done, fg=None if answer.done else "red")
    if not answer.done:
        click.echo("the relay goes on with the configuration that it has", err=True)
        raise SystemExit(os.EX_CONFIG)


def _exit(message: str) -> NoReturn:
    click.secho(message, err=True, fg="red")
    raise SystemExit(os.EX_UNAVAILABLE)
