"""kill -9 at random moments: every line arrives at every sink, and little arrives twice."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.conftest import MakeDaemon
from tests.support.daemon import Daemon, append, event, http, ids, tcp, until
from tests.support.receivers.http import HttpReceiver
from tests.support.receivers.sockets import Receiver, TcpReceiver

# What a kill may make a sink receive again is what was sent and whose cursor was not on disk yet:
# the runs that may be in flight (a run is at most one row of the buffer), one being sent, one whose
# settling is under way, and the rows that were settled since cursors were last stored: with the
# last commit, or 20 ms after 200 records. These are 6 more at the pace of this writer.
IN_FLIGHT_RUNS = {"newline": 64, "counted": 64, "web": 4}
OTHER_ROWS = 8

WRITTEN_AT_ONCE = 40
LINES_PER_FILE = 1500
PAUSE_S = 0.01


class Writer:
    """Appends lines and rotates by rename and create, in its own thread, until left."""

    def __init__(self, path: Path, chance: random.Random) -> None:
        self.written = 0
        self._path, self._chance = path, chance
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def _write(self) -> None:
        files = 0
        while not self._stop.wait(PAUSE_S):
            first = self.written + 1
            append(self._path, (event(n) for n in range(first, first + WRITTEN_AT_ONCE)))
            self.written += WRITTEN_AT_ONCE
            if self.written // LINES_PER_FILE > files and self._chance.random() < 0.5:
                files = self.written // LINES_PER_FILE
                self._path.rename(f"{self._path}.{files}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._stop.set()
        self._thread.join()


@pytest.mark.parametrize("kills", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_any_moment_the_relay_loses_nothing(
    make_daemon: MakeDaemon, seed: int, kills: int
) -> None:
    chance = random.Random(seed)
    with TcpReceiver() as newline, TcpReceiver("octet-counting") as counted, HttpReceiver() as web:
        daemon = make_daemon(
            {
                "newline": tcp(newline.port),
                "counted": tcp(counted.port, framing="octet-counting"),
                "web": http(web.url),
            }
        )
        daemon.config["sources"]["audit"]["path"] = f"{daemon.audit}*"
        bounds: Counter[str] = Counter()
        with Writer(daemon.audit, random.Random(seed)) as writer:
            for _ in range(kills):
                # Some die before they have started, most of them in the middle of the work.
                moment = time.monotonic() + chance.uniform(0.05, 1.5)
                daemon.start(ready=False)
                until(partial(passed, moment))
                daemon.kill()
                bounds.update(most_repeats(daemon))
        daemon.start()
        for receiver in (newline, counted, web):
            until(partial(arrived_all, receiver, writer.written), 60)
        until(lambda: settled(daemon))
        assert daemon.terminate() == 0
        for sink, receiver in (("newline", newline), ("counted", counted), ("web", web)):
            found = Counter(receiver.arrived.ids)
            repeats = found.total() - len(found)
            print(f"{sink}: {writer.written} lines, {repeats} repeats of {bounds[sink]} allowed")
            assert sorted(found) == ids(range(1, writer.written + 1))
            assert repeats <= bounds[sink]
        total = daemon.rows("SELECT sum(count) FROM batches")
        assert total == [(writer.written,)], "each line is in the buffer exactly once"


def test_killed_at_any_moment_the_relay_has_every_event_of_several_lines_once(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    audit, traces = tmp_path / "audit.log", tmp_path / "traces.log"
    with TcpReceiver() as receiver:
        daemon = make_daemon({"out": tcp(receiver.port)})
        daemon.config["sources"] = {
            "audit": {"type": "file", "path": str(audit), "decoder": "auditd"},
            "traces": {"type": "file", "path": str(traces), "decoder": "text",
                       "multiline": {"indented": True, "flush_after": "500ms"}},
        }  # fmt: skip
        chance, written = random.Random(7), 0
        for kill in range(4):
            # On a busy machine the others may be killed before there is a buffer.
            daemon.start(ready=kill == 3)
            moment = time.monotonic() + chance.uniform(0.3, 0.9)
            while not passed(moment):
                written += 2
                write_mixed(audit, traces, written)
                time.sleep(PAUSE_S)
            if kill < 3:
                daemon.kill()
        until(lambda: daemon.rows(BY_SOURCE) == [("audit", written), ("traces", written)])
        until(lambda: settled(daemon))
        assert daemon.terminate() == 0
        found = [json.loads(message) for message in receiver.arrived.messages]
        events = {event["siemrelay"]["sequence"]: event for event in found}
        serials = [
            event["attributes"]["serial"] for event in events.values() if event["type"] == "SYSCALL"
        ]
        assert sorted(serials, key=int) == [str(n) for n in range(1, written + 1)]
        assert all(
            set(event["attributes"]) == {"serial", "syscall", "cwd", "proctitle"}
            for event in events.values() if event["type"] == "SYSCALL"
        )  # fmt: skip
        messages = [e["message"] for e in events.values() if e["siemrelay"]["source"] == "traces"]
        assert sorted(messages) == sorted(f"{n} first\n  second" for n in range(1, written + 1))


BY_SOURCE = "SELECT source, sum(count) FROM batches WHERE source != 'siemrelay' GROUP BY source"


def write_mixed(audit: Path, traces: Path, last: int) -> None:
    """Two events of each log; the lines of the audit events are mixed, and the last one is late."""
    one, two = (
        [f"type={kind} msg=audit({1_700_000_000 + n // 100}.{n % 100:03}:{n}): x={n}\n"
         for kind in ("SYSCALL", "CWD", "PROCTITLE")]
        for n in (last - 1, last)
    )  # fmt: skip
    with audit.open("a") as log:
        log.write("".join([one[0], two[0], one[1], two[1], two[2]]))
    with traces.open("a") as log:
        log.write(f"{last - 1} first\n  second\n{last} first\n  second\n")
    with audit.open("a") as log:
        log.write(one[2])


def passed(moment: float) -> bool:
    return time.monotonic() >= moment


def arrived_all(receiver: Receiver, total: int) -> bool:
    return len(receiver.arrived) >= total and len(set(receiver.arrived.ids)) >= total


def settled(daemon: Daemon) -> bool:
    return not any(
        daemon.metric("sink_backlog_records", sink=sink) for sink in daemon.config["sinks"]
    )


def most_repeats(daemon: Daemon) -> dict[str, int]:
    """What each sink may receive again after this kill: the records of so many rows."""
    if not (daemon.state / "buffer.db").exists() or not daemon.rows("PRAGMA user_version")[0][0]:
        return {}  # killed before there was a buffer
    return {
        sink: sum(
            count
            for (count,) in daemon.rows(
                f"SELECT min(count, first_sequence + count - {cursor}) FROM batches "
                f"WHERE first_sequence + count > {cursor} "
                f"ORDER BY first_sequence LIMIT {IN_FLIGHT_RUNS[sink] + OTHER_ROWS}"
            )
        )
        for sink, cursor in daemon.rows("SELECT sink, next_sequence FROM cursors")
    }
