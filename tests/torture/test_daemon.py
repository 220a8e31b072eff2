"""The whole daemon on a disk that hangs, under a clock that jumps, and after a power cut."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeDaemon
from tests.support.daemon import PATIENCE_S, Daemon, event, ids, tcp, until
from tests.support.http_sender import Sender, port_of
from tests.support.receivers.sockets import TcpReceiver
from tests.torture.power_cut import Disk, read_log
from tests.torture.shim import HANG, Call, Shim

HOUR_S = 3600.0
YEAR_S = 365 * 24 * HOUR_S


@pytest.fixture
def shim(library: Path, ram: Path) -> Iterator[Shim]:
    """The library for a daemon whose state directory is in RAM/root."""
    (ram / "root").mkdir()
    with Shim(library, ram / "root") as made:
        yield made


def hooked(make: MakeDaemon, state: Path, sinks: dict[str, Any], **top: Any) -> Daemon:
    """A relay with a web hook, whose state directory is there."""
    daemon = make(sinks, state_dir=str(state), **top)
    daemon.config["sources"] = {"hooks": {"type": "http", "listen": "http://127.0.0.1:0/events"}}
    daemon.state = state
    return daemon


def healthy(daemon: Daemon) -> bool:
    assert daemon.get("/healthz")[0] == 200
    assert daemon.get("/readyz")[0] == 200
    return True


def post(daemon: Daemon, number: int) -> None:
    with Sender(port_of(daemon)) as sender:
        assert sender.post(json.dumps(event(number)).encode())[0] == 200


@pytest.mark.parametrize("hangs_s", [0.0, pytest.param(45.0, marks=pytest.mark.slow)])
def test_while_the_disk_hangs_nothing_is_acknowledged_and_the_rest_goes_on(
    make_daemon: MakeDaemon, ram: Path, shim: Shim, hangs_s: float
) -> None:
    with TcpReceiver() as near, TcpReceiver(up=False) as late:
        daemon = hooked(
            make_daemon, ram / "root" / "state", {"near": tcp(near.port), "late": tcp(late.port)}
        )
        daemon.environment = shim.environment()
        daemon.start()
        post(daemon, 1)
        near.until(1)
        shim.fail(Call.SYNC, HANG, part="buffer.db-wal")
        with Sender(port_of(daemon)) as sender:
            body = json.dumps(event(2)).encode()
            head = f"POST /events HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n"
            sender.send(head.encode() + body)
            until(lambda: shim.hanging)
            # Another sink comes back and reads what is on disk; the endpoint answers.
            late.up()
            late.until(1)
            ends = time.monotonic() + hangs_s
            until(lambda: healthy(daemon) and time.monotonic() >= ends, hangs_s + PATIENCE_S)
            until(lambda: not daemon.metric("sink_backlog_records", sink="late"))
            assert daemon.metric("source_records_total", source="hooks") == 1
            # Nobody has seen what a power cut could still take back, and nobody was told 200.
            assert near.arrived.ids == late.arrived.ids == ids([1])
            sender.socket.setblocking(False)
            with suppress(BlockingIOError):
                sender.rest = sender.socket.recv(1 << 16)
            assert sender.rest[:12] in (b"", b"HTTP/1.1 503")
            shim.heal()
            sender.socket.settimeout(20)
            assert sender.answer()[0] in (200, 503)
        for receiver in (near, late):
            receiver.until(2)
            assert receiver.arrived.ids == ids([1, 2])
        assert daemon.terminate() == 0


@pytest.mark.parametrize("jumps", [(HOUR_S, -HOUR_S), (YEAR_S, -YEAR_S), (-YEAR_S, YEAR_S)])
def test_a_clock_that_jumps_costs_no_record_and_stops_no_timer(
    make_daemon: MakeDaemon, ram: Path, shim: Shim, jumps: tuple[float, ...]
) -> None:
    with TcpReceiver() as near, TcpReceiver() as late:
        daemon = hooked(
            make_daemon, ram / "root" / "state", {"near": tcp(near.port), "late": tcp(late.port)}
        )
        daemon.environment = shim.environment()
        daemon.start()
        post(daemon, 1)
        near.until(1)
        until(lambda: not daemon.metric("sink_backlog_records", sink="late"))
        late.down()
        post(daemon, 2)
        near.until(2)
        numbers = 2
        for jump in jumps:
            shim.move_clock(jump)
            numbers += 1
            post(daemon, numbers)
            near.until(numbers)
            if jump > 24 * HOUR_S:
                # What was delivered is older than `keep` now; what was not stays.
                until(lambda: daemon.rows("SELECT min(first_sequence) FROM batches") == [(2,)])
            assert daemon.get("/healthz")[0] == 200
            ages = {n: v for (n, _), v in daemon.metrics().items() if n.endswith("_age_seconds")}
            assert min(ages.values(), default=0.0) >= 0, ages
            status = daemon.command("status", "--at", daemon.endpoint)
            assert "late" in status.stdout, status.stderr
        daemon.kill()
        daemon.start()
        late.up()
        late.until(numbers)
        assert late.arrived.ids == ids(range(1, numbers + 1)), "each once, in order"
        assert sorted(set(near.arrived.ids)) == ids(range(1, numbers + 1))
        assert daemon.terminate() == 0


@pytest.mark.parametrize("cuts", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_after_a_power_cut_the_daemon_delivers_all_that_it_answered(
    make_daemon: MakeDaemon, ram: Path, shim: Shim, seed: int, cuts: int
) -> None:
    state, posted, chance = ram / "root" / "state", 30, random.Random(seed)
    with TcpReceiver() as near, TcpReceiver(up=False) as late:
        daemon = hooked(make_daemon, state, {"near": tcp(near.port), "late": tcp(late.port)})
        daemon.environment = shim.environment(recorded=True)
        daemon.start()
        for number in range(1, posted + 1):
            post(daemon, number)
            shim.mark(str(number))
        near.until(posted)
        daemon.kill()
    log, disk, answered = [*read_log(shim.log)], Disk(), 0
    chosen = sorted(chance.sample(range(len(log)), cuts))
    for at, operation in enumerate(log):
        if at in chosen:
            image = ram / f"image{at}"
            disk.write_image(image, chance, share=chance.choice((0, 0.5, 1)))
            arrives_after_a_start(make_daemon, image / "state", answered)
        if operation.call == Call.NONE:
            answered = int(operation.data)
        disk.apply(operation)


def arrives_after_a_start(make: MakeDaemon, state: Path, answered: int) -> None:
    """A relay on that directory sends the sink that was down everything up to that number."""
    with TcpReceiver() as near, TcpReceiver() as late:
        daemon = hooked(make, state, {"near": tcp(near.port), "late": tcp(late.port)})
        daemon.start()
        until(lambda: set(late.arrived.ids) >= set(ids(range(1, answered + 1))))
        found = late.arrived.ids
        assert found == ids(range(1, len(found) + 1)), "each once, in order"
        assert daemon.terminate() == 0
