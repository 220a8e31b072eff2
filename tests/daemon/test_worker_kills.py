"""A rush with workers that somebody kills: every line arrives once, and in order."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import MakeDaemon
from tests.support.daemon import Daemon, append, event, ids, tcp, until
from tests.support.receivers.sockets import TcpReceiver

LINES = 250_000


@pytest.mark.slow
def test_a_rush_arrives_whole_and_in_order_while_its_workers_are_killed(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver() as one, TcpReceiver() as other:
        sinks = {
            "whole": tcp(one.port),
            "short": tcp(other.port, map={"message": None}),
        }
        daemon = make_daemon(sinks, workers=2)
        append(daemon.audit, (event(n, text="x" * 300) for n in range(1, LINES + 1)))
        daemon.start()
        killed = 0
        while len(one.arrived) < LINES or len(other.arrived) < LINES:
            assert not daemon.process_ended()
            for pid in workers(daemon):
                os.kill(pid, signal.SIGKILL)
                killed += 1
            time.sleep(0.3)
        assert killed
        until(lambda: daemon.metric("worker_failures_total"))
        assert daemon.terminate() == 0
        for receiver in (one, other):
            assert receiver.arrived.ids == ids(range(1, LINES + 1))


def workers(daemon: Daemon) -> list[int]:
    assert daemon.process is not None
    try:
        found = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children").read_text()
    except FileNotFoundError:
        return []
    return [int(pid) for pid in found.split()]
