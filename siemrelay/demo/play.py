"""The play: the daemon, the receivers and the writer, scene by scene, to the balance."""

from __future__ import annotations

import os
import secrets
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import trio

from siemrelay.demo.audit_log import Writer
from siemrelay.demo.balance import Balance, settled, strike
from siemrelay.demo.daemon import Daemon, DaemonFailed
from siemrelay.demo.ledger import Ledger
from siemrelay.demo.receivers import HttpReceiver, TcpReceiver, UdpReceiver
from siemrelay.demo.scene import Scene, set_up
from siemrelay.demo.stage import Stage

# The scenes, as shares of the whole: an audience needs time before, between and after them.
_ROTATE_AT: Final = 0.3
_DOWN_AT: Final = 0.5
_DOWN_SHARE: Final = 0.15
_DOWN_S: Final = 3.0

# As often as the view changes; a scrape takes the daemon two milliseconds.
_SCRAPE_EVERY_S: Final = 0.25

# After the last line is written: the slowest sink retries within a second, and is through the
# backlog in another.
_SETTLE_S: Final = 10.0
_SETTLE_ASK_S: Final = 0.1

_TOKEN_BYTES: Final = 16
_RUN_BYTES: Final = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """How long the writer writes, and how many events a second on average."""

    seconds: float
    rate_per_s: float


class View(Protocol):
    """How the person sees it."""

    def opening(self, scene: Scene, pid: int) -> None:
        """Before the first event: the configuration, and where things are."""

    async def show(self, stage: Stage) -> None:
        """Show the stage until cancelled."""

    def closing(self, balance: Balance, last_words: list[str]) -> None:
        """The balance; `last_words` of the daemon's log help where it does not add up."""


class Stopped(Exception):
    """The person asked a second time, or before anything had begun: everything is put away."""


async def play(plan: Plan, view: View) -> Balance:
    """Play the demo to its end, or until the first Ctrl-C, and put everything away.

    Raises DaemonFailed (with its log in a note) and Stopped.
    """
    with tempfile.TemporaryDirectory(prefix="siemrelay-demo-") as place:
        async with trio.open_nursery(strict_exception_groups=False) as house:
            stop = trio.Event()
            await house.start(_watch_signals, stop)
            balance = await _Play(plan, view, Path(place), stop).run(house)
            house.cancel_scope.cancel()
    return balance


async def _watch_signals(
    stop: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    with trio.open_signal_receiver(*wanted) as received:
        task_status.started()
        async for _ in received:
            if stop.is_set():
                raise Stopped
            stop.set()


class _Play:
    def __init__(self, plan: Plan, view: View, place: Path, stop: trio.Event) -> None:
        self._plan, self._view, self._place, self._stop = plan, view, place, stop
        self._ledger = Ledger(f"demo-{secrets.token_hex(_RUN_BYTES)}")
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        self._udp = UdpReceiver(self._ledger)
        self._tcp = TcpReceiver(self._ledger)
        self._http = HttpReceiver(self._ledger, token)
        self._token = token

    async def run(self, house: trio.Nursery) -> Balance:
        receivers = {"syslog-udp": self._udp, "cef-tcp": self._tcp, "json-http": self._http}
        ports = {name: await receiver.bind() for name, receiver in receivers.items()}
        for receiver in receivers.values():
            house.start_soon(receiver.run)
        scene = set_up(self._place, ports, self._token)
        tallies = {name: receiver.tally for name, receiver in receivers.items()}
        daemon = Daemon(scene)
        try:
            with self._open_writer() as writer:
                await house.start(daemon.run)
                await self._until_ready(daemon)
                self._view.opening(scene, daemon.pid)
                stage = Stage(self._plan.seconds, self._ledger, writer, tallies)
                await self._perform(stage, daemon)
            await daemon.stop()
        except DaemonFailed as error:
            for line in daemon.last_words():
                error.add_note(line)
            raise
        balance = strike(self._ledger, tallies, stage.figures)
        self._view.closing(balance, daemon.last_words() if balance.faults() else [])
        return balance
