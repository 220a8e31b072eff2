"""Real servers from Debian: found, started on loopback in a directory of their own, put away."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import pytest

from tests.support.daemon import until

# Daemons live where a user's PATH may not look.
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


def missing(what: str) -> NoReturn:
    """What a test needs is not here: a failure under CI=true, else a skip."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}; under CI=true that is a failure")
    pytest.skip(what)


def program(name: str, package: str) -> str:
    """The program's path; see `missing`."""
    found = shutil.which(name, path=_PATH)
    return found or missing(f"{name} is not installed (Debian package {package})")


def _ports() -> Iterator[int]:
    """Below those that Linux gives to connections and to whoever asks for any port, in any order.

    None of them is given again soon, and none to another worker of pytest: nobody gets a port by
    chance between its choice and its use.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    mine = [*range(20_000 + worker, 32_000, workers)]
    random.SystemRandom().shuffle(mine)
    return itertools.cycle(mine)


_PORTS = _ports()


def open_to_all(*places: str | Path) -> bool:
    """Whether every user may enter these directories."""
    found = [Path(place).resolve() for place in places]
    return all(
        step.stat().st_mode & stat.S_IXOTH for place in found for step in (place, *place.parents)
    )


other_users_run_it = pytest.mark.skipif(
    not open_to_all(sys.prefix, sys.base_prefix, Path(__file__).parent),
    reason="other users may not enter the directory of this Python or of this source",
)


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A loopback port that nobody uses now, and that no other test gets soon."""
    while True:
        port = next(_PORTS)
        with closing(socket.socket(socket.AF_INET, kind)) as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


class Server:
    """A program in the foreground that listens on loopback; runs from `with` to its end."""

    def __init__(self, port: int, errors: Path, listens: Path | None = None) -> None:
        """`errors` takes what it says. `listens` is the Unix socket that it makes, None: `port`."""
        self.port, self._errors, self._listens_at = port, errors, listens
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> tuple[list[str], dict[str, str]]:
        """The command, and what it wants in its environment."""
        raise NotImplementedError

    def start(self) -> Self:
        """Start it and wait until it listens."""
        assert self._process is None
        command, environment = self.command()
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
                env={**os.environ, **environment},
            )  # fmt: skip
        try:
            until(self._listens, what=f"{command[0]} listening")
        except BaseException:  # nobody would end it
            self.kill()
            raise
        return self

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.errors
        if self._listens_at is not None:
            return self._listens_at.exists()
        with closing(socket.socket()) as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(20)
        self._process = None

    @property
    def errors(self) -> str:
        """What it said about itself."""
        return self._errors.read_text(errors="replace")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._process is not None:
            self.stop()


def json_lines(file: Path) -> list[dict[str, Any]]:
    """Every whole line of a file that may be growing."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_bytes().rpartition(b"\n")[0].splitlines()]
