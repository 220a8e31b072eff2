"""sd_notify(3) against a real datagram socket."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from siemrelay.relay.systemd import Notifier


@pytest.fixture(params=["path", "abstract"])
def systemd(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@siemrelay-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name.replace("@", "\0", 1))
        sock.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        yield sock


def test_each_change_is_one_datagram(systemd: socket.socket) -> None:
    notifier = Notifier()
    notifier.ready()
    notifier.alive("all sinks up")
    before_us = time.monotonic_ns() // 1000
    notifier.reloading()
    notifier.ready()
    notifier.stopping()
    heard = [systemd.recv(4096) for _ in range(5)]
    reloading, _, moment = heard.pop(2).partition(b"\nMONOTONIC_USEC=")
    assert reloading == b"RELOADING=1"
    assert before_us <= int(moment) <= time.monotonic_ns() // 1000
    assert heard == [b"READY=1", b"STATUS=all sinks up", b"READY=1", b"STOPPING=1"]
    assert notifier.watchdog_interval_s == float("inf")


def test_the_watchdog_is_fed_at_half_its_time(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    notifier = Notifier()
    assert notifier.watchdog_interval_s == 1.5
    notifier.alive("well")
    assert systemd.recv(4096) == b"STATUS=well\nWATCHDOG=1"


def test_a_status_is_sent_when_it_changes_and_as_often_as_the_watchdog_needs_it(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    systemd.setblocking(False)
    sent: list[tuple[int, bytes]] = []
    second = 0
    notifier = Notifier(clock=lambda: float(second))
    for second in range(60):
        notifier.alive("well" if second < 40 else "siem connecting")
        with suppress(BlockingIOError):
            sent.append((second, systemd.recv(4096).partition(b"\n")[0]))
    well, troubled = b"STATUS=well", b"STATUS=siem connecting"
    assert sent == [(0, well), (15, well), (30, well), (40, troubled), (55, troubled)]


def test_a_status_that_could_not_be_sent_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"siemrelay-again-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    notifier = Notifier()
    notifier.alive("well")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name}")
        sock.settimeout(5)
        notifier.alive("well")
        assert sock.recv(4096) == b"STATUS=well"


def test_the_watchdog_of_another_process_is_left_alone(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    assert Notifier().watchdog_interval_s == float("inf")


def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Notifier().ready()
    monkeypatch.setenv("NOTIFY_SOCKET", "/nobody/listens/here")
    Notifier().ready()


def test_a_full_socket_is_not_waited_for(systemd: socket.socket) -> None:
    notifier = Notifier()
    for number in range(1000):
        notifier.alive(f"{number:1000}")
