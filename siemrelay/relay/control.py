"""The control socket: commands to a running relay, from root and the relay's own user and group.

A Unix stream socket. The client sends a `ControlRequest` as a line of JSON; the relay answers with
lines of JSON, of which the last is a `ControlAnswer`. The socket lies in the runtime directory that
systemd made (`RUNTIME_DIRECTORY`), where the group may use it, else in `state_dir`, which nobody
else can enter (0700).
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import msgspec

SOCKET_NAME: Final = "control.sock"

# Where systemd makes runtime directories: a command on a terminal looks there, too.
_RUNTIME_DIRECTORIES: Final = ("siemrelay*", "siemrelay/*")


class ReloadRequest(msgspec.Struct, tag="reload", tag_field="command"):
    """Reload the configuration file; `dry_run` only answers with the plan.

    `environment` has new values of variables to which the file refers.
    """

    dry_run: bool = False
    discard_backlog: list[str] = msgspec.field(default_factory=list)
    environment: dict[str, str] = msgspec.field(default_factory=dict)


class PauseRequest(msgspec.Struct, tag="pause", tag_field="command"):
    """Stop delivering to a sink until a `ResumeRequest`; its records are kept."""

    sink: str


class ResumeRequest(msgspec.Struct, tag="resume", tag_field="command"):
    """Deliver to a paused sink again, from where it stopped."""

    sink: str


class TapRequest(msgspec.Struct, tag="tap", tag_field="command"):
    """Show live events until the client goes; empty lists mean all. `types` as in `events:`."""

    sinks: list[str]
    sources: list[str]
    types: list[str]


class TestRequest(msgspec.Struct, tag="test", tag_field="command"):
    """Store a test event and follow it to these sinks (empty: to all), for `timeout_s` at most."""

    sinks: list[str]
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)]


Command = ReloadRequest | PauseRequest | ResumeRequest | TapRequest | TestRequest


class ControlRequest(msgspec.Struct):
    """A command for the relay on `state_dir`; a relay on another one does not obey it.

    `person` runs the command, if that is somebody else than the user of the process (sudo).
    """

    command: Command
    state_dir: str
    person: str = ""


class ControlAnswer(msgspec.Struct, tag="end", tag_field="answer"):
    """The last line of an answer. `lines` are for a person; not `done`: the relay refused.

    `elsewhere`: this relay has another state directory than the request names. `plan` is what a
    reload would change, of a dry run.
    """

    done: bool
    lines: list[str]
    elsewhere: bool = False
    plan: list[str] = msgspec.field(default_factory=list)


class TapLine(msgspec.Struct, tag="tap", tag_field="answer"):
    """`what` is `decoded` (`text` is the event as JSON), `sent` (the message) or `left out`.

    The last stands for `lost` records that came faster than they are shown. Secrets are redacted.
    """

    what: str
    at: float
    source: str = ""
    sink: str = ""
    sequence: int = 0
    type: str = ""
    text: str = ""
    lost: int = 0


class TestLine(msgspec.Struct, tag="test", tag_field="answer"):
    """The result of the test event for one sink.

    `outcome` is `delivered`, `filtered`, `refused`, `dropped`, `disabled`, `paused` or `no
    confirmation`.
    """

    sink: str
    outcome: str
    detail: str


ControlLine = ControlAnswer | TapLine | TestLine


class Caller(msgspec.Struct, frozen=True):
    """The process that sent a command, as the kernel knows it (SO_PEERCRED), and its user's name.

    `person` is the name that it gave itself, if it is root's; else the name of its user.
    """

    uid: int
    pid: int
    person: str

    def __str__(self) -> str:
        return f"{self.person} (uid {self.uid})"


Emit = Callable[[ControlLine], Awaitable[None]]
"""Sends a line of an answer before its last one; waits while the client does not read."""

Handle = Callable[[Command, Caller, Emit], Awaitable[ControlAnswer]]


def own_directory(state_dir: Path) -> Path:
    """Where a relay of this process puts its socket."""
    runtime = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return Path(runtime) if runtime else state_dir


def possible_directories(state_dir: Path) -> list[Path]:
    """Where the socket of a relay on that state directory may be."""
    run = Path("/run")
    found = [path for pattern in _RUNTIME_DIRECTORIES for path in sorted(run.glob(pattern))]
    return list(dict.fromkeys([own_directory(state_dir), state_dir, *found]))


def real_path(state_dir: Path) -> str:
    """The directory's name in a `ControlRequest`, whatever links lead to it."""
    return os.path.realpath(state_dir)


@contextmanager
def short_path(directory: Path) -> Iterator[str]:
    """The socket's address, however long the directory's path is (a limit of 107 bytes)."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_NAME}"
    finally:
        os.close(descriptor)
