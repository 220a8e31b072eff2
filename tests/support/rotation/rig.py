"""A relay, and rsyslog beside it, following logs while they are written and rotated."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tests.support.daemon import Daemon, until
from tests.support.programs.imfile import Imfile
from tests.support.rotation.numbered_logs import Contents, Line, Output, Writer, in_files, runs

# What happens to the relay while logs are rotated: it runs; it is stopped for several rotations, or
# frozen (SIGSTOP); or it is ended again and again, by SIGTERM or by SIGKILL.
Relay = Literal["live", "stopped", "frozen", "restarted", "killed"]
RELAYS: tuple[Relay, ...] = ("live", "stopped", "frozen", "restarted", "killed")

# How long nothing may arrive before what is missing counts as lost: a relay that starts on a busy
# machine with a thousand files may take a while. Its peer has had as long as the relay.
QUIET_S = 30.0
PEER_QUIET_S = 3.0


@dataclass
class Figures:
    """What became of the lines that were written."""

    written: int = 0
    lost: list[Line] = field(default_factory=list)
    repeated: list[Line] = field(default_factory=list)
    foreign: list[bytes] = field(default_factory=list)
    unavoidable: list[Line] = field(default_factory=list)
    headers_written: int = 0
    headers_lost: int = 0
    headers_repeated: int = 0

    @property
    def all_written(self) -> int:
        """Header lines included."""
        return self.written + self.headers_written

    @property
    def all_repeated(self) -> int:
        """Header lines included."""
        return len(self.repeated) + self.headers_repeated

    def __str__(self) -> str:
        """One line for people."""
        words = f"{self.written} written, {len(self.lost)} lost, {len(self.repeated)} repeated"
        if self.lost:
            words += f"\n  lost: {runs(self.lost)}"
        if self.repeated:
            words += f"\n  repeated: {runs(set(self.repeated))}"
        if self.foreign:
            words += f"\n  {len(self.foreign)} lines that nobody wrote: {self.foreign[0]!r} …"
        if self.headers_lost or self.headers_repeated:
            words += f"\n  headers: {self.headers_lost} lost, {self.headers_repeated} repeated"
        if self.unavoidable:
            words += f"\n  gone before the relay was started again: {runs(self.unavoidable)}"
        return words


def figures(writers: Sequence[Writer], arrived: Contents, gone: Iterable[Line] = ()) -> Figures:
    """Compare what was written with what arrived; `gone` is what could not be read any more."""
    written = {(each.log, n) for each in writers for n in range(1, each.number + 1)}
    unavoidable = {line for line in gone if line not in arrived.lines}
    headers = {each.log: each.headers for each in writers if each.headers}
    return Figures(
        written=len(written),
        lost=sorted(written - set(arrived.lines) - unavoidable),
        repeated=sorted(
            line for line, count in arrived.lines.items() for _ in range(count - 1)
        ),
        foreign=arrived.foreign,
        unavoidable=sorted(unavoidable),
        headers_written=sum(headers.values()),
        headers_lost=sum(max(n - arrived.headers[log], 0) for log, n in headers.items()),
        headers_repeated=sum(max(arrived.headers[log] - n, 0) for log, n in headers.items()),
    )  # fmt: skip


class Rig:
    """A relay with one file source and a file sink, and the writers of its logs.

    `paths` are the globs that it follows. `within`: the numbered part is the end of each line.
    With `peer`, rsyslog follows the files of that glob at the same time.
    """

    def __init__(
        self, daemon: Daemon, paths: Sequence[str], writers: Sequence[Writer], *,
        within: bool = False, peer: Path | None = None,
    ) -> None:  # fmt: skip
        self.daemon, self.writers = daemon, writers
        self._paths, self._within = list(paths), within
        self.output = Output(daemon.directory / "arrived" / "lines", within=within)
        daemon.config["sources"] = {"audit": {"type": "file", "path": self._paths}}
        daemon.config["sinks"] = {
            "archive": {
                "protocol": "file", "path": str(self.output.path), "format": "raw",
                "rotate_size": 0,
            }
        }  # fmt: skip
        self.output.path.parent.mkdir()
        self.peer = Imfile(daemon.directory / "rsyslog", peer) if peer else None
        self._peer_output = Output(self.peer.output, within=within) if self.peer else None
        self._down_since: dict[str, int] = {}
        self._there_then: set[Line] = set()
        self._gone: set[Line] = set()
        self.may_repeat = 0
        self._began = time.monotonic()
        self._history: list[str] = []

    def run(
        self, relay: Relay, rotate: Callable[[], None], *, rotations: int, while_stopped: int = 3,
        interval_s: float, relay_first: bool = False, read_first: int = 0,
    ) -> None:  # fmt: skip
        """Start everything, rotate so many times, and end with the relay running.

        `rotate` is called once each `interval_s`; it does nothing if the writers rotate. With
        `relay_first` nothing is written before the relay runs and `read_first` lines have arrived.
        """
        if relay_first:
            self._start()
            until(lambda: len(self.output.look().lines) >= read_first)
        for each in self.writers:
            each.start()
        if not relay_first:
            self._start()

        def once() -> None:
            time.sleep(interval_s)
            self.note("rotation")
            rotate()
            self.note("rotation has ended")

        if relay == "live":
            for _ in range(rotations):
                once()
        elif relay in ("stopped", "frozen"):
            once()
            # Each log has been begun: what is at stake is how it goes on.
            until(lambda: {log for log, _ in self.output.look().lines} == self.logs)
            stop, go_on = (
                (self._terminate, self._start) if relay == "stopped" else (self._freeze, self._thaw)
            )
            stop()
            for _ in range(while_stopped):
                once()
            self._count_gone()
            go_on()
            once()
        else:
            end = self._kill if relay == "killed" else self._terminate
            for number in range(rotations):
                # Down during the rotation, or between two.
                if number % 2:
                    once()
                    end()
                else:
                    time.sleep(interval_s / 2)
                    end()
                    once()
                self._count_gone()
                self._start()
        time.sleep(interval_s)

    @property
    def logs(self) -> set[str]:
        """The names of the logs."""
        return {each.log for each in self.writers}

    def _start(self) -> None:
        self.note("start")
        if self.peer:
            self.peer.start()
        self.daemon.start()

    def _terminate(self) -> None:
        self._note_down("SIGTERM")
        assert self.daemon.terminate() == 0, self.daemon.log_text
        self._there_then = in_files(self._paths, within=self._within)
        if self.peer:
            self.peer.stop()

    def _kill(self) -> None:
        self._note_down("SIGKILL")
        self.daemon.kill()
        self._there_then = in_files(self._paths, within=self._within)
        # What is stored but not behind the sink's cursor may arrive twice.
        ((cursor,),) = self.daemon.rows("SELECT next_sequence FROM cursors")
        ((end,),) = self.daemon.rows("SELECT max(first_sequence + count) FROM batches")
        self.may_repeat += max((end or 0) - cursor, 0)
        if self.peer:
            self.peer.stop()

    def _freeze(self) -> None:
        self._note_down("SIGSTOP")
        self.daemon.send(signal.SIGSTOP)
        self._there_then = set()  # it has its files open still, whatever becomes of their names

    def _thaw(self) -> None:
        self.note("SIGCONT")
        self.daemon.send(signal.SIGCONT)

    def _note_down(self, signal_name: str) -> None:
        self._down_since = {each.log: each.number for each in self.writers}
        self.note(signal_name)

    def _count_gone(self) -> None:
        """What was in a file, or was written, while the relay was down, and is in no file now that
        it is started again, is gone for good.
        """
        numbers = {each.log: each.number for each in self.writers}
        written = {
            (log, n)
            for log, last in numbers.items()
            for n in range(self._down_since[log] + 1, last + 1)
        }
        there = in_files(self._paths, within=self._within)
        self._gone |= (self._there_then | written) - there

    def note(self, event: str) -> None:
        """Keep an event for the report of a failure."""
        numbers = " ".join(f"{each.log}:{each.number}" for each in self.writers[:8])
        self._history.append(f"{time.monotonic() - self._began:7.3f} {event}  [{numbers}]")

    def finish(self, *, careless: bool = False) -> Figures:
        """Stop the writers, wait for what is missing, then run the relay once more to its end.

        That last run finds whatever it would read again of what has been read. `careless`: only
        what is in a file at the end must arrive.
        """
        for each in self.writers:
            each.stop()
        self.note("writers stopped")
        if careless:
            self._gone = {
                (each.log, n) for each in self.writers for n in range(1, each.number + 1)
            } - in_files(self._paths)
        wanted = {
            (each.log, n) for each in self.writers for n in range(1, each.number + 1)
        } - self._gone
        wait_for_all(self.output, wanted, QUIET_S)
        if self._peer_output is not None:
            wait_for_all(self._peer_output, wanted, PEER_QUIET_S)
        before = figures(self.writers, self.output.contents, self._gone)
        self.note(f"live: {before}")
        self._terminate()
        done = self.daemon.command("run", "--drain")
        assert done.returncode == 0, done.stderr
        after = figures(self.writers, self.output.look(), self._gone)
        self.note(f"after a last run: {after}")
        after.lost = before.lost
        return after

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        for each in self.writers:
            each.stop()
        if self.peer:
            self.peer.stop()

    def peer_figures(self) -> Figures:
        """The same for rsyslog, which has been stopped."""
        assert self._peer_output is not None
        return figures(self.writers, self._peer_output.look(), self._gone)

    def stored(self) -> int:
        """How many records the relay's buffer holds."""
        ((count,),) = self.daemon.rows("SELECT sum(count) FROM batches")
        return int(count or 0)

    def report(self, logs: Iterable[str] = ()) -> str:
        """What happened, what the relay's logs say above `info`, and all that they say of `logs`.

        More records stored than written lines have been read twice; else the sink sent them twice.
        """
        lines = [f"{self.stored()} records stored"]
        for log in sorted(self.daemon.directory.glob("log.*")):
            for line in log.read_text().splitlines():
                if '"level": "info"' not in line or any(f"{name}." in line for name in logs):
                    lines.append(f"{log.name}: {line[:400]}")
        return "\n".join([*self._history, *lines[:200]])


def judge(rig: Rig, relay: Relay, *, careless: bool = False) -> str:
    """Fail if the relay lost a line, made one up, or repeated one without a kill.

    The figures, for people. For `careless` see `Rig.finish`.
    """
    figures = rig.finish(careless=careless)
    said = f"siemrelay: {figures}" + (f"; rsyslog: {rig.peer_figures()}" if rig.peer else "")
    print(said)
    wrong = sorted({log for log, _ in figures.lost + figures.repeated})
    story = f"{said}\n{rig.report(wrong[:1])}"
    assert not figures.lost, story
    assert not figures.foreign, story
    assert not figures.headers_lost, story
    if relay == "killed":
        assert figures.all_repeated <= rig.may_repeat, story
        assert rig.stored() == figures.all_written - len(figures.unavoidable), story
    else:
        assert not figures.all_repeated, story
    return said


def wait_for_all(output: Output, wanted: set[Line], quiet_s: float) -> None:
    """Wait until these lines have arrived, or nothing has arrived for `quiet_s`."""
    last, since = -1, time.monotonic()

    def over() -> bool:
        nonlocal last, since
        arrived = output.look().lines
        if len(arrived) != last:
            last, since = len(arrived), time.monotonic()
        return wanted <= arrived.keys() or time.monotonic() - since > quiet_s

    until(over, 600, "an end of arrivals")
