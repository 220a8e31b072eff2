"""Ten million records wait for a sink that is down: what a start costs then, and what memory."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import pytest
import trio

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.buffer.sink_cursor import SinkPolicy
from siemrelay.core.event import Batch
from siemrelay.telemetry.stats import BufferStats
from tests.conftest import MakeDaemon
from tests.support.daemon import Daemon, event, tcp, until
from tests.support.receivers.sockets import TcpReceiver

PER_COMMIT = 2000

# More than an empty relay takes: SQLite's page caches, a megabyte of rows read at a time, what is
# in flight to the sink.
MORE_MB = 40


async def fill(state: Path, records: int, per_row: int) -> None:
    """Store so many events of a source that is gone, as fast as the buffer takes them."""
    chance = random.Random(7)
    lines = [
        json.dumps(event(n, message=chance.randbytes(40).hex())) + "\n" for n in range(PER_COMMIT)
    ]
    payloads = ["".join(lines[at : at + per_row]).encode() for at in range(0, PER_COMMIT, per_row)]
    with DiskBuffer(state, max_size_bytes=1 << 40, keep_s=1e9, stats=BufferStats()) as buffer:
        buffer.set_sinks({"out": SinkPolicy()})
        for commit in range(1, records + 1, PER_COMMIT):
            firsts = range(commit, commit + PER_COMMIT, per_row)
            batches = [
                Batch(first, per_row, "audit", time.time(), payload)
                for first, payload in zip(firsts, payloads, strict=True)
            ]
            await buffer.append(batches, {})


def cpu_s(daemon: Daemon) -> float:
    """What the present process has used of the processor."""
    assert daemon.process is not None
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(
    ("records", "per_row"),
    [
        (100_000, PER_COMMIT),
        pytest.param(10_000_000, PER_COMMIT, marks=pytest.mark.slow),
        pytest.param(1_000_000, 1, marks=pytest.mark.slow),
    ],
)
def test_a_backlog_costs_neither_a_start_nor_memory(
    make_daemon: MakeDaemon, records: int, per_row: int
) -> None:
    with TcpReceiver(up=False) as receiver:
        sinks, settings = {"out": tcp(receiver.port)}, {"buffer": {"max_size": "100 GiB"}}
        empty = make_daemon(sinks, **settings).start()
        nothing_s, nothing_mb = cpu_s(empty), empty.peak_mb()
        assert empty.terminate() == 0

        daemon = make_daemon(sinks, **settings)
        trio.run(fill, daemon.state, records, per_row)
        began = time.monotonic()
        daemon.start()
        wall_s, start_s, start_mb = time.monotonic() - began, cpu_s(daemon), daemon.peak_mb()
        assert daemon.metric("sink_backlog_records", sink="out") == records
        receiver.up()
        until(lambda: len(receiver.arrived) >= 100_000, 120)
        delivering_mb = daemon.peak_mb()
        size_mb = (daemon.state / "buffer.db").stat().st_size / 1e6
        print(f"{records} records, {per_row} a row, {size_mb:.0f} MB: start "
              f"{wall_s:.2f} s ({start_s:.2f} s of the processor, {nothing_s:.2f} s with nothing), "
              f"{nothing_mb:.0f} MB with nothing, "
              f"{start_mb:.0f} MB started, {delivering_mb:.0f} MB delivering")  # fmt: skip
        daemon.kill()
    # Of the processor, which a busy machine does not change: the promise is 2 s from end to end.
    assert start_s - nothing_s < 0.3
    assert start_s < 2
    assert start_mb - nothing_mb < 10
    assert delivering_mb - nothing_mb < MORE_MB
