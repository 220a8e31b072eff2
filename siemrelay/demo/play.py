"""The play: the daemon, the receivers and the writer, scene by scene, to the balance."""

from __future__ import annotations

import secrets
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import trio

from siemrelay.core.errors import leaves
from siemrelay.demo.audit_log import Writer
from siemrelay.demo.balance import Balance, settled, strike
from siemrelay.demo.daemon import Daemon, DaemonFailed
from siemrelay.demo.ledger import Ledger
from siemrelay.demo.receivers import HttpReceiver, Receiver, TcpReceiver, UdpReceiver
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

    Raises DaemonFailed and Stopped, when everything has been put away, too.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="siemrelay-demo-") as place:
            async with trio.open_nursery() as house:
                stop = trio.Event()
                await house.start(_watch_signals, stop)
                balance = await _Play(plan, view, Path(place), stop).run(house)
                house.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        expected, rest = group.split((DaemonFailed, Stopped, BrokenPipeError, KeyboardInterrupt))
        if expected is None or rest is not None:
            raise
        raise leaves(expected)[0] from group
    return balance


async def _watch_signals(
    stop: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as received:
        task_status.started()
        async for _ in received:
            if stop.is_set():
                raise Stopped
            stop.set()


class _Play:
    def __init__(self, plan: Plan, view: View, place: Path, stop: trio.Event) -> None:
        self._plan, self._view, self._place, self._stop = plan, view, place, stop
        self._ledger = Ledger(f"demo-{secrets.token_hex(_RUN_BYTES)}")
        self._token = secrets.token_urlsafe(_TOKEN_BYTES)
        self._tcp = TcpReceiver(self._ledger)
        self._receivers: dict[str, Receiver] = {
            "syslog-udp": UdpReceiver(self._ledger),
            "cef-tcp": self._tcp,
            "json-http": HttpReceiver(self._ledger, self._token),
        }
        self._tallies = {name: receiver.tally for name, receiver in self._receivers.items()}

    async def run(self, house: trio.Nursery) -> Balance:
        ports = {name: await receiver.bind() for name, receiver in self._receivers.items()}
        for receiver in self._receivers.values():
            house.start_soon(receiver.run)
        daemon = Daemon(set_up(self._place, ports, self._token))
        with Writer(self._place, self._ledger, self._plan.rate_per_s) as writer:
            await house.start(daemon.run)
            async with self._until_stop():
                await daemon.until_ready()
            if self._stop.is_set():
                raise Stopped
            self._view.opening(daemon.scene, daemon.pid)
            stage = Stage(self._plan.seconds, self._ledger, writer, self._tallies)
            stage.figures = await daemon.figures()
            await self._perform(stage, daemon)
        await daemon.stop()
        balance = strike(self._ledger, self._tallies, stage.figures)
        self._view.closing(balance, daemon.last_words() if balance.faults() else [])
        return balance

    async def _perform(self, stage: Stage, daemon: Daemon) -> None:
        """Everything that the view shows."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._view.show, stage)
            nursery.start_soon(_watch_figures, stage, daemon)
            async with self._until_stop():
                async with trio.open_nursery() as acts:
                    acts.start_soon(stage.writer.run)
                    await self._acts(stage)
                    acts.cancel_scope.cancel()
            stage.ended_at = trio.current_time()
            self._end_outage(stage)
            said = "stopped by you" if self._stop.is_set() else "the writer is done"
            stage.tell(f"{said}: the relay delivers what it still has")
            with trio.move_on_after(_SETTLE_S) as patience:
                while not settled(self._ledger, self._tallies, stage.figures):
                    await trio.sleep(_SETTLE_ASK_S)
                    stage.figures = await daemon.figures()
            if not patience.cancelled_caught:
                stage.tell("everything has arrived: the daemon is stopped")
            nursery.cancel_scope.cancel()

    async def _acts(self, stage: Stage) -> None:
        seconds, started_at = self._plan.seconds, stage.started_at
        await trio.sleep_until(started_at + seconds * _ROTATE_AT)
        log = stage.writer.logs["alm"]
        old = log.rotate()
        stage.tell(
            f"alm/{log.path.name} was rotated: the relay finishes {old.name}, follows the new one"
        )
        await trio.sleep_until(started_at + seconds * _DOWN_AT)
        self._tcp.take_down()
        stage.down = "cef-tcp"
        stage.tell("cef-tcp receiver goes down: its events wait on disk; the others go on")
        await trio.sleep(min(_DOWN_S, seconds * _DOWN_SHARE))
        self._end_outage(stage)
        await trio.sleep_until(started_at + seconds)

    def _end_outage(self, stage: Stage) -> None:
        if stage.down is not None:
            waiting = stage.sink(stage.down).backlog
            self._tcp.bring_up()
            stage.tell(f"{stage.down} receiver is up again: {waiting:,} records that waited follow")
            stage.down = None

    @asynccontextmanager
    async def _until_stop(self) -> AsyncIterator[None]:
        """Cancels its block when the person asks to stop."""
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await self._stop.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            yield
            nursery.cancel_scope.cancel()


async def _watch_figures(stage: Stage, daemon: Daemon) -> None:
    while True:
        stage.figures = await daemon.figures()
        await trio.sleep(_SCRAPE_EVERY_S)
