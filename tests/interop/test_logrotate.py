"""Debian's logrotate rotates live logs in every way that it has: no line is lost or repeated.

The short form runs one row of each way, `--slow` the whole table; `-rP` or `-s` shows the figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import pytest

from tests.conftest import MakeDaemon
from tests.support.programs.logrotate import Logrotate
from tests.support.rotation.numbered_logs import AppendingWriter, line_of
from tests.support.rotation.rig import RELAYS, Relay, Rig, judge


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way to rotate: what is configured, who writes, and what happens to the relay.

    `keep` is logrotate's `rotate`. `late`: after a rename, writers go on in the old file for this
    part of the interval. `follows`: the globs, relative to the directory of the logs. `holds`:
    writers pause while their log is copied and truncated. `prefilled_bytes`: of the first log.
    """

    options: str
    keep: int = 3
    relay: Relay = "live"
    logs: int = 8
    rotations: int = 6
    interval_s: float = 0.5
    late: float = 0
    header_bytes: int = 0
    follows: tuple[str, ...] = ("audit*.log*",)
    holds: bool = False
    prefilled_bytes: int = 0
    force: bool = True

    @property
    def peer(self) -> bool:
        """Whether rsyslog follows the logs, too: it is not asked to survive what the relay does."""
        return self.relay == "live" and self.logs == 8

    @property
    def id(self) -> str:
        """What pytest calls it."""
        parts = [f"rotate {self.keep} {self.options.replace('; ', ' ')}", self.relay]
        parts += [f"{self.logs} logs", f"{self.rotations} times each {self.interval_s:g} s"]
        if self.late:
            parts.append("late writers")
        if self.header_bytes:
            parts.append("one header")
        if self.prefilled_bytes:
            parts.append(f"{self.prefilled_bytes >> 20} MiB")
        if self.follows != Case.follows:
            parts.append("follows " + " ".join(self.follows))
        return "-".join(parts)


WAYS = {
    "create": Case(options="create"),
    "nocreate": Case(options="nocreate"),
    "compress": Case(options="compress; create"),
    "compress, rotate 2": Case(options="compress; create", keep=2),
    "compress, rotate 30": Case(options="compress; create", keep=30, rotations=10),
    "rotate 0": Case(options="create", keep=0),
    "extension": Case(options="compress; create; extension .log"),
    "delaycompress": Case(options="compress; delaycompress; create"),
    "late": Case(options="create", late=0.7),
    "late, delaycompress": Case(options="compress; delaycompress; create", late=0.7),
    "dateext": Case(
        options="compress; dateext; dateformat -%Y%m%d-%s; create", keep=2, interval_s=1.2
    ),
    "dateext, extension": Case(
        options="compress; dateext; dateformat -%Y%m%d-%s; extension .log; create", interval_s=1.2
    ),
    "dateext, plain": Case(options="dateext; dateformat -%Y%m%d-%s; create", interval_s=1.2),
    "copytruncate": Case(options="copytruncate", holds=True),
    "copytruncate, writers go on": Case(options="copytruncate; compress", keep=30),
    "copytruncate, compress": Case(options="copytruncate; compress", keep=10, holds=True),
    "copytruncate, delaycompress": Case(
        options="copytruncate; compress; delaycompress", keep=10, holds=True
    ),
    "copytruncate, dateext": Case(
        options="copytruncate; compress; dateext; dateformat -%Y%m%d-%s", holds=True, interval_s=1.2
    ),
    "maxsize": Case(options="daily; maxsize 4k; compress; create", force=False),
    "olddir": Case(
        options="olddir old; createolddir 755; compress; create",
        follows=("audit*.log*", "old/audit*.log*"),
    ),
    "olddir not followed": Case(options="olddir old; createolddir 755; create"),
    "bzip2": Case(options="compress; compresscmd bzip2; compressext .bz2; create"),
    "xz": Case(options="compress; compresscmd xz; compressext .xz; create"),
    "zstd": Case(options="compress; compresscmd zstd; compressext .zst; create"),
}  # fmt: skip

HEADER = 4096


def shorter(case: Case, **changes: object) -> Case:
    """The case as the short form runs it."""
    return replace(case, logs=4, rotations=4, interval_s=max(0.3, case.interval_s - 0.2), **changes)  # type: ignore[arg-type]  # fields of Case


def stoppable(case: Case) -> bool:
    """Whether all that is rotated while the relay is stopped can be read afterwards."""
    return case.keep > 1 + bool(case.late) and (
        "olddir" not in case.options or len(case.follows) > 1
    )


SHORT = [
    shorter(WAYS["compress"]),
    shorter(WAYS["compress"], relay="restarted"),
    shorter(WAYS["compress"], relay="stopped", header_bytes=HEADER),
    shorter(WAYS["compress, rotate 2"], header_bytes=HEADER),
    shorter(WAYS["dateext"], relay="killed"),
    shorter(WAYS["late, delaycompress"]),
    shorter(WAYS["copytruncate"], header_bytes=HEADER),
    shorter(WAYS["copytruncate, compress"]),
    shorter(WAYS["copytruncate, compress"], relay="stopped"),
    shorter(WAYS["maxsize"]),
    shorter(WAYS["olddir"], relay="restarted"),
    shorter(WAYS["olddir not followed"]),
    shorter(WAYS["zstd"]),
]

# What once lost a quarter of the lines, for the figures beside rsyslog's.
FIELD = [
    Case(options="compress; create", keep=3, rotations=11, interval_s=1),
    Case(
        options="compress; dateext; dateformat -%Y%m%d-%s; create", keep=2, rotations=5,
        interval_s=1.1,
    ),
    Case(options="copytruncate; compress", keep=10, holds=True, rotations=8, interval_s=1),
    Case(options="create", keep=3, rotations=11, interval_s=1),
    Case(options="compress; delaycompress; create", keep=3, late=0.7, rotations=11, interval_s=1),
]  # fmt: skip

LONG = [
    *(
        replace(way, relay=relay)
        for way, relay in product(WAYS.values(), RELAYS)
        if relay == "live" or stoppable(way)
    ),
    *(replace(way, logs=1, interval_s=max(way.interval_s, 1.0)) for way in WAYS.values()),
    *(replace(way, logs=20, interval_s=max(way.interval_s, 1.5)) for way in WAYS.values()),
    *(replace(way, header_bytes=HEADER) for way in WAYS.values()),
    *(
        replace(way, header_bytes=HEADER, relay="stopped")
        for way in WAYS.values()
        if stoppable(way)
    ),
    *(
        replace(WAYS[name], interval_s=0.3, rotations=12)
        for name in ("create", "compress", "delaycompress", "copytruncate, compress")
    ),
    *(
        # Kept for long: a relay that is killed every few seconds may not have read it all before.
        replace(WAYS[name], interval_s=2, prefilled_bytes=100 << 20, logs=2, relay=relay, keep=10)
        for name in ("create", "compress", "copytruncate", "copytruncate, compress")
        for relay in RELAYS[::2]
    ),
]


def rig_for(
    case: Case, directory: Path, logs: Path, make_daemon: MakeDaemon, *, peer: bool = False
) -> tuple[Rig, Logrotate]:
    """What a case needs: logs in the folder `logs`, everything else in `directory`."""
    print(case.id)
    directory.chmod(0o700)  # logrotate refuses a directory that others may write to
    logs.mkdir(mode=0o755, exist_ok=True)
    logrotate = Logrotate(
        directory, logs / "audit*.log", f"rotate {case.keep}; {case.options}", holds=case.holds
    )
    (logs / "audit-idle.log").touch()
    writers = []
    for number in range(case.logs):
        path = logs / f"audit{number:02}.log"
        path.touch()
        writers.append(
            AppendingWriter(
                path, path.stem, creates="nocreate" in case.options,
                late_s=case.late * case.interval_s, header_bytes=case.header_bytes,
                hold=logrotate.hold_of(path) if case.holds else None,
            )
        )  # fmt: skip
    if case.prefilled_bytes:
        writers[0].number = prefill(logs / "audit00.log", case.prefilled_bytes)
    daemon = make_daemon({}, directory=directory)
    follows = [f"{logs}/{each}" for each in case.follows]
    return Rig(daemon, follows, writers, peer=logs / "audit*.log" if peer else None), logrotate


def rotate(case: Case, rig: Rig, logrotate: Logrotate) -> None:
    """Everything at once: writers, relay and logrotate."""
    rig.run(
        case.relay, lambda: logrotate.rotate(force=case.force), rotations=case.rotations,
        # What the relay was reading, and what late writers wrote into the generation before, is
        # still there when it is started, and is not deleted by the rotation that follows at once.
        while_stopped=min(case.keep - 1, 3) - bool(case.late), interval_s=case.interval_s,
    )  # fmt: skip


def run(case: Case, directory: Path, logs: Path, make_daemon: MakeDaemon, *, peer: bool) -> str:
    """Run a case; see `judge`."""
    rig, logrotate = rig_for(case, directory, logs, make_daemon, peer=peer)
    with rig:
        rotate(case, rig, logrotate)
        # Without a pause, what is written between the copy and the truncation is lost to everybody.
        return judge(rig, case.relay, careless="copytruncate" in case.options and not case.holds)


def prefill(log: Path, size_bytes: int) -> int:
    """Fill a log before anybody follows it; the number of its last line."""
    number = size = 0
    with log.open("wb") as file:
        while size < size_bytes:
            number += 1
            size += file.write(line_of(log.stem, number) + b"\n")
    return number


@pytest.mark.parametrize("case", SHORT, ids=lambda case: case.id)
def test_logrotate_loses_and_repeats_nothing(
    case: Case, tmp_path: Path, make_daemon: MakeDaemon
) -> None:
    run(case, tmp_path, tmp_path / "logs", make_daemon, peer=False)


def test_what_logrotate_deletes_while_the_relay_is_stopped_is_warned_of(
    tmp_path: Path, make_daemon: MakeDaemon
) -> None:
    case = shorter(WAYS["compress"], keep=1)
    rig, logrotate = rig_for(case, tmp_path, tmp_path / "logs", make_daemon)
    with rig:
        rig.run(
            "stopped", logrotate.rotate, rotations=1, while_stopped=3, interval_s=case.interval_s
        )
        figures = rig.finish()
    assert figures.unavoidable, figures
    assert not figures.repeated, rig.report()
    # Not of a log that was begun so shortly before that nothing had been read of it.
    warned = [line for line in rig.daemon.log if "is lost" in line["event"]]
    assert {Path(path).stem for line in warned for path in line["files"]}, rig.report()


@pytest.mark.slow
@pytest.mark.parametrize("case", FIELD, ids=lambda case: case.id)
def test_eight_logs_rotated_for_ten_seconds_arrive_once_beside_rsyslog(
    case: Case, tmp_path: Path, make_daemon: MakeDaemon, record_property: Callable[[str, str], None]
) -> None:
    record_property("rotation", run(case, tmp_path, tmp_path / "logs", make_daemon, peer=True))


@pytest.mark.slow
@pytest.mark.parametrize("case", LONG, ids=lambda case: case.id)
def test_logrotate_loses_and_repeats_nothing_in_the_whole_table(
    case: Case, tmp_path: Path, make_daemon: MakeDaemon, record_property: Callable[[str, str], None]
) -> None:
    record_property("rotation", run(case, tmp_path, tmp_path / "logs", make_daemon, peer=case.peer))
