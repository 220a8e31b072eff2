"""Runs the demo: daemon, receivers and writer, a rotation and an outage, to the balance."""

from __future__ import annotations

import secrets
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from siemrelay.core.errors import leaves
from siemrelay.demo.audit_log import Writer
from siemrelay.demo.balance import Balance, compare, settled
from siemrelay.demo.daemon import Daemon, DaemonFailed
from siemrelay.demo.ledger import Ledger, samples
from siemrelay.demo.progress import DemoProgress
from siemrelay.demo.receivers import HttpReceiver, Receiver, TcpReceiver, UdpReceiver
from siemrelay.demo.setup import held_port, write_configuration
from siemrelay.demo.view import View

# When the log is rotated and the receiver goes down, as shares of the whole time.
_ROTATE_AT: Final = 0.3
_DOWN_AT: Final = 0.5
_DOWN_SHARE: Final = 0.15
_DOWN_S: Final = 3.0

# As often as the view changes; a scrape costs the daemon two milliseconds.
_SCRAPE_EVERY_S: Final = 0.25

# After the last line: the slowest sink retries within a second and needs another for its backlog.
_SETTLE_S: Final = 10.0
_SETTLE_ASK_S: Final = 0.1

_TOKEN_BYTES: Final = 16
_RUN_BYTES: Final = 3


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """How long the writer writes, and its average number of events per second."""

    seconds: float
    rate_per_s: float


class Stopped(Exception):
    """A second signal, or one before the first event; everything is cleaned up."""


async def run_demo(plan: DemoPlan, view: View) -> Balance:
    """Run the demo to its end or to the first signal, and clean up.

    Raises DaemonFailed and Stopped, after the same cleaning up.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="siemrelay-demo-") as place:
            async with trio.open_nursery() as outer:
                stop = trio.Event()
                await outer.start(_watch_signals, stop)
                balance = await _Demo(plan, view, Path(place), stop).run(outer)
                outer.cancel_scope.cancel()
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


class _Demo:
    def __init__(self, plan: DemoPlan, view: View, place: Path, stop: trio.Event) -> None:
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

    async def run(self, outer: trio.Nursery) -> Balance:
        ports = {name: await receiver.bind() for name, receiver in self._receivers.items()}
        for receiver in self._receivers.values():
            outer.start_soon(receiver.run)
        with (
            held_port() as endpoint_port,
            Writer(self._place, self._ledger, self._plan.rate_per_s) as writer,
        ):
            daemon = Daemon(write_configuration(self._place, ports, endpoint_port, self._token))
            await outer.start(daemon.run)
            async with self._until_stop():
                await daemon.until_ready()
            if self._stop.is_set():
                raise Stopped
            self._view.opening(daemon.files, daemon.pid)
            progress = DemoProgress(self._plan.seconds, writer, self._tallies)
            await progress.refresh(daemon)
            await self._show(progress, daemon)
        await daemon.stop()
        balance = compare(self._ledger, self._tallies, progress.snapshot.figures)
        self._view.closing(balance, samples(self._ledger, self._tallies),
                           daemon.log_tail() if balance.faults() else [])  # fmt: skip
        return balance

    async def _show(self, progress: DemoProgress, daemon: Daemon) -> None:
        """Write, rotate, take a receiver down, and wait until everything has arrived."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._view.show, progress)
            nursery.start_soon(_watch_figures, progress, daemon)
            async with self._until_stop():
                async with trio.open_nursery() as writing:
                    writing.start_soon(progress.writer.run)
                    await self._events(progress)
                    writing.cancel_scope.cancel()
            progress.ended_at = trio.current_time()
            self._end_outage(progress)
            reason = "stopped by you" if self._stop.is_set() else "the writer has finished"
            progress.announce(f"{reason}: the relay delivers the rest")
            with trio.move_on_after(_SETTLE_S) as patience:
                while not settled(self._ledger, self._tallies, progress.snapshot.figures):
                    await trio.sleep(_SETTLE_ASK_S)
                    await progress.refresh(daemon)
            if not patience.cancelled_caught:
                progress.announce("everything has arrived: stopping the daemon")
            nursery.cancel_scope.cancel()

    async def _events(self, progress: DemoProgress) -> None:
        seconds, started_at = self._plan.seconds, progress.started_at
        await trio.sleep_until(started_at + seconds * _ROTATE_AT)
        log = progress.writer.logs["alm"]
        old = log.rotate()
        progress.announce(
            f"alm/{log.path.name} rotated: the relay finishes {old.name}, follows the new one"
        )
        await trio.sleep_until(started_at + seconds * _DOWN_AT)
        self._tcp.take_down()
        progress.down = "cef-tcp"
        progress.announce("cef-tcp receiver goes down: its events wait on disk")
        await trio.sleep(min(_DOWN_S, seconds * _DOWN_SHARE))
        self._end_outage(progress)
        await trio.sleep_until(started_at + seconds)

    def _end_outage(self, progress: DemoProgress) -> None:
        if progress.down is not None:
            waiting = progress.snapshot.sink(progress.down).backlog
            self._tcp.bring_up()
            progress.announce(
                f"{progress.down} receiver is up again: {waiting:,} waiting records follow"
            )
            progress.down = None

    @asynccontextmanager
    async def _until_stop(self) -> AsyncIterator[None]:
        """Cancels its block at the first signal."""
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await self._stop.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            yield
            nursery.cancel_scope.cancel()


async def _watch_figures(progress: DemoProgress, daemon: Daemon) -> None:
    while True:
        await progress.refresh(daemon)
        await trio.sleep(_SCRAPE_EVERY_S)
