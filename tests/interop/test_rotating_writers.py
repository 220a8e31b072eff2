"""Programs that rotate their own logs: Python's handlers, loguru, log4j, logback, kubelet.

Nothing is lost or repeated, whatever happens to the relay meanwhile.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from tests.conftest import MakeDaemon
from tests.support.programs.logrotate import Logrotate
from tests.support.rotation import writers as programs
from tests.support.rotation.numbered_logs import Writer
from tests.support.rotation.rig import RELAYS, Relay, Rig, judge
from tests.support.servers import program


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program and the globs that fit its logs.

    `within`: each line begins with something else than its number. `live_only`: what is rotated
    away while the relay is stopped matches none of the globs.
    """

    make: Callable[[str, Path], Writer]
    follows: tuple[str, ...]
    within: bool = False
    live_only: bool = False


PROGRAMS = {
    "RotatingFileHandler": Program(
        make=lambda log, root: programs.PythonWriter(log, programs.rotating(root / f"{log}.log")),
        follows=("*.log*",),
    ),
    "RotatingFileHandler with gzip": Program(
        make=lambda log, root: programs.PythonWriter(
            log, programs.rotating_gzip(root / f"{log}.log")
        ),
        follows=("*.log*",),
    ),
    "TimedRotatingFileHandler": Program(
        make=lambda log, root: programs.PythonWriter(log, programs.timed(root / f"{log}.log")),
        follows=("*.log*",),
    ),
    "loguru with gzip": Program(make=programs.LoguruWriter, follows=("*.log*",)),
    "log4j": Program(
        make=lambda log, root: programs.Log4jWriter(log, root / f"{log}.log"), follows=("*.log*",)
    ),
    "logback": Program(
        make=lambda log, root: programs.LogbackWriter(log, root / f"{log}.log"),
        follows=("*.log", "*.log*.tmp", "*.log.gz"),
    ),
    "multilog": Program(make=programs.MultilogWriter, follows=("*/current", "*/@*")),
    "multilog with gzip": Program(
        make=lambda log, root: programs.MultilogWriter(log, root, "gzip"),
        follows=("*/current", "*/@*"),
    ),
    "kubelet, by its links": Program(
        # Through a link only the newest file is in sight: one that lasts a second is seen.
        make=lambda log, root: programs.KubernetesWriter(log, root, 4 * programs.ROLL_BYTES),
        follows=("containers/*.log",), within=True, live_only=True,
    ),
    "kubelet, by its pods": Program(
        make=programs.KubernetesWriter, follows=("pods/*/*/*.log*",), within=True
    ),
}  # fmt: skip


def run(
    program: Program, relay: Relay, directory: Path, make_daemon: MakeDaemon, *, logs: int,
    intervals: int,
) -> str:  # fmt: skip
    """Let so many of them write for so many intervals; see `judge`."""
    root = directory / "logs"
    root.mkdir()
    writers = [program.make(f"app{number:02}", root) for number in range(logs)]
    daemon = make_daemon({}, directory=directory)
    follows = [f"{root}/{each}" for each in program.follows]
    with Rig(daemon, follows, writers, within=program.within) as rig:
        rig.run(
            relay, lambda: None, rotations=intervals, while_stopped=2, interval_s=0.5,
            relay_first=program.live_only,
        )  # fmt: skip
        return judge(rig, relay)


@pytest.mark.parametrize(
    ("name", "relay"),
    [
        ("RotatingFileHandler", "live"),
        ("RotatingFileHandler", "stopped"),
        ("RotatingFileHandler with gzip", "live"),
        ("TimedRotatingFileHandler", "restarted"),
        ("loguru with gzip", "live"),
        ("log4j", "restarted"),
        ("logback", "live"),
        ("kubelet, by its links", "live"),
        ("kubelet, by its pods", "killed"),
        ("multilog", "stopped"),
    ],
)
def test_logs_that_their_programs_rotate_arrive_once(
    name: str, relay: Relay, tmp_path: Path, make_daemon: MakeDaemon
) -> None:
    run(PROGRAMS[name], relay, tmp_path, make_daemon, logs=2, intervals=4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "relay"),
    [
        (name, relay)
        for name, relay in product(PROGRAMS, RELAYS)
        if relay == "live" or not PROGRAMS[name].live_only
    ],
)
def test_eight_logs_that_their_programs_rotate_arrive_once(
    name: str, relay: Relay, tmp_path: Path, make_daemon: MakeDaemon,
    record_property: Callable[[str, str], None],
) -> None:  # fmt: skip
    record_property(
        "rotation", run(PROGRAMS[name], relay, tmp_path, make_daemon, logs=8, intervals=6)
    )


def rotated_by_logrotate(directory: Path) -> Callable[[], None]:
    """logrotate without `create`: the handler makes the new log."""
    directory.chmod(0o700)  # logrotate refuses a directory that others may write to
    return Logrotate(directory, directory / "logs" / "*.log", "rotate 3; compress; nocreate").rotate


def rotated_by_savelog(directory: Path) -> Callable[[], None]:
    """Debian's savelog: `.0` is plain, `.1.gz` and later ones are compressed."""
    savelog = program("savelog", "debianutils")

    def rotate() -> None:
        logs = (directory / "logs").glob("*.log")
        subprocess.run([savelog, "-q", "-c", "5", *map(str, logs)], check=True)

    return rotate


@pytest.mark.slow
@pytest.mark.parametrize("rotated", [rotated_by_logrotate, rotated_by_savelog])
@pytest.mark.parametrize("relay", RELAYS)
def test_a_watched_file_handler_loses_nothing_when_others_rotate_its_log(
    rotated: Callable[[Path], Callable[[], None]], relay: Relay, tmp_path: Path,
    make_daemon: MakeDaemon,
) -> None:  # fmt: skip
    logs = tmp_path / "logs"
    logs.mkdir()
    writers = [
        programs.PythonWriter(f"app{number}", programs.watched(logs / f"app{number}.log"))
        for number in range(4)
    ]
    with Rig(make_daemon({}, directory=tmp_path), [f"{logs}/*.log*"], writers) as rig:
        rig.run(relay, rotated(tmp_path), rotations=5, interval_s=0.4)
        judge(rig, relay)
