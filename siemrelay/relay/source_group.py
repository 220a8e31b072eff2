"""The sources of a running relay, with the committer that stores what they read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial

import msgspec
import trio

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.config.models import RelayConfig
from siemrelay.core.errors import StartRefused
from siemrelay.net.listening_sockets import BindAddress, Listening
from siemrelay.pipeline.intake.intake import Committer, SourceIntake
from siemrelay.pipeline.intake.record_splitter import RecordSplitter
from siemrelay.pipeline.intake.source_filter import SourceFilter
from siemrelay.pipeline.observer import Observers
from siemrelay.relay.assembly import Assembly
from siemrelay.relay.own_events import OwnEvents
from siemrelay.relay.plan import Plan
from siemrelay.relay.supervise import RunningParts, summarize
from siemrelay.sources.contract import Source
from siemrelay.telemetry.stats import SourceCounts, SourceStats, Stats


class SourceGroup:
    """Every configured source. Nothing is opened before `run`."""

    def __init__(
        self, config: RelayConfig, assembly: Assembly, buffer: DiskBuffer, stats: Stats,
        observers: Observers,
    ) -> None:  # fmt: skip
        self._buffer, self._stats = buffer, stats
        for name, former in assembly.former_names.items():
            buffer.rename_source(former, name)
        self.shutdown_s = config.shutdown_timeout
        self._committer = Committer(buffer, stats, config.buffer.batch_window, observers.intake)
        self.own_events = OwnEvents(self._committer, buffer, stats)
        """While `run` runs."""
        self._running: RunningParts
        self._built = {name: _build(assembly, name) for name in config.sources}
        self._binds = _binds(config)

    async def run(
        self, *, drain: bool, stop: trio.Event, started: Callable[[], None],
        stopped: Callable[[], Awaitable[None]],
    ) -> None:  # fmt: skip
        """Read until `stop` is set; with `drain`, until every source is at its end.

        Calls `started` once all sources run, and `stopped` once none does. What was read when the
        sources ended is stored before this returns, and what `stopped` stores, unless the disk
        takes longer than `shutdown_timeout`.
        """
        async with trio.open_nursery() as storing:
            storing.start_soon(self._committer.run)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cancel_when_set, stop, nursery.cancel_scope)
                async with trio.open_nursery() as reading:
                    if not drain:  # between the stop of the last source and the start of another
                        reading.start_soon(trio.sleep_forever)
                    self._running = RunningParts("source", reading)
                    for name in self._built:
                        self._start(name, drain=drain)
                    started()
                nursery.cancel_scope.cancel()
            self._committer.sockets.keep_only([])
            self._stats.stopping = True
            with trio.move_on_after(self.shutdown_s):
                await stopped()
                await self._committer.settled()
            storing.cancel_scope.cancel()

    def _start(self, name: str, *, drain: bool = False) -> None:
        if name not in self._stats.sources:
            before = self._buffer.source_counts.get(name, SourceCounts())
            self._stats.sources[name] = SourceStats(
                name, before.records, before.bytes, filtered=before.filtered,
            )  # fmt: skip
        self._stats.sources[name].progress_at = trio.current_time()
        source, source_filter, splitter = self._built[name]
        intake: SourceIntake | None = None

        async def read() -> None:
            nonlocal intake
            if intake is None:
                # What it handed over before is on disk first: it resumes there. That may take as
                # long as the buffer is full, and nothing but this source waits for it.
                await self._committer.settled()
                intake = self._committer.intake(name, source_filter, splitter)
            await source.run(intake, drain=drain)

        self._running.start(name, read, partial(self._failed, name))

    async def take_addresses(self, config: RelayConfig) -> None:
        """Open the addresses of a new configuration before those of the present one are closed.

        Raises ListenRefused when one cannot be taken; then none has been. One that overlaps with an
        address that is given up is left to the source, which takes it when that has been closed.
        """
        wanted, present = [*_pairs(_binds(config))], [*_pairs(self._binds)]
        sockets, opened = self._committer.sockets, list[tuple[str, BindAddress]]()
        given_up = {address for _, address in present} - {address for _, address in wanted}
        try:
            for name, address in wanted:
                if (name, address) in present and self._stats.sources[name].failed:
                    continue  # it is trying
                if not any(map(address.clashes, given_up)) and await sockets.open(
                    name, address, mode=getattr(config.sources[name], "mode", 0o660)
                ):
                    opened.append((name, address))
        except BaseException:
            for name, address in opened:
                sockets.close(name, address)
            raise

    def keep_addresses(self) -> None:
        """Close what `take_addresses` opened for a change that is not made."""
        self._committer.sockets.keep_only(_pairs(self._binds))

    async def _cancel_when_set(self, stop: trio.Event, scope: trio.CancelScope) -> None:
        await stop.wait()
        # First, so that nobody connects to sources that only read their last records.
        self._committer.sockets.keep_only([])
        scope.cancel()

    @asynccontextmanager
    async def renaming(self, renamed: Mapping[str, str]) -> AsyncIterator[None]:
        """Stop sources and give what is stored of them to their new names, for `change`.

        If there is no room for that, or the block raises StartRefused, they run on by their old
        names (or, without room for that either, begin as if they were new).
        """
        stopped: list[tuple[str, str]] = []
        try:
            for former, name in renamed.items():
                await self._running.stop(former)
                stopped.append((former, name))
                if not await self._settled():
                    raise StartRefused(
                        f"source {former} cannot be renamed now: what it has read waits for room "
                        "in the buffer; make room, then reload"
                    )
                await self._buffer.change_source_name(former, name)
            yield
        except StartRefused:
            for former, name in stopped:
                with suppress(StartRefused):
                    await self._buffer.change_source_name(name, former)
                self._start(former)
            raise

    async def change(self, plan: Plan, config: RelayConfig, assembly: Assembly) -> None:
        """Make the changes of a plan; sources that it does not name are not touched.

        Every new source is built before an old one stops. A restarted source resumes at its stored
        position: what the old one handed over is on disk before the new one starts. Call
        `take_addresses` first, and within `renaming`.
        """
        affected = {*plan.names("source", "restart", "add", "rename")}
        built = {
            name: _build(assembly, name) if name in affected else self._built[name]
            for name in config.sources
        }
        self.shutdown_s, self._binds = config.shutdown_timeout, _binds(config)
        # What listens at an address that is given up closes it when it is stopped.
        self._committer.sockets.keep_only(_pairs(self._binds))
        self._committer.coalescer.window_s = config.buffer.batch_window
        renamed = plan.renamed("source")
        for name in plan.names("source", "restart"):
            await self._running.stop(name)
        if removed := plan.names("source", "remove"):
            for name in removed:
                await self._running.stop(name)
            await self._settled()
        for former, name in renamed.items():
            stats = self._stats.sources.pop(former)
            self._stats.sources[name] = msgspec.structs.replace(stats, name=name)
        for name in removed:
            gone = self._stats.sources.pop(name)
            self._buffer.source_counts[name] = SourceCounts(gone.records, gone.bytes, gone.filtered)
        self._built = built
        for name in built:
            if name in affected:
                self._start(name)

    async def restart(self, name: str) -> None:
        """Stop a source and start it again, from its stored position."""
        with trio.CancelScope(shield=True):
            await self._running.stop(name)
            self._start(name)

    async def _settled(self) -> bool:
        """Wait until what stopped sources handed over is on disk; returns whether it is.

        Not for ever: the buffer may be full until this reload, or one after it, makes room.
        """
        with trio.move_on_after(self.shutdown_s) as waiting:
            await self._committer.settled()
        return not waiting.cancelled_caught

    async def try_again(self) -> list[str]:
        """Start the sources that have failed at once; returns their names."""
        failed = [name for name in self._built if self._stats.sources[name].failed]
        with trio.CancelScope(shield=True):  # the person who asked may go away
            for name in failed:
                await self._running.stop(name)
                self._start(name)
        return failed

    def _failed(self, name: str, error: BaseException) -> None:
        # Nobody accepts before the next attempt: refused senders can turn to another relay.
        for address in self._binds.get(name, []):
            self._committer.sockets.close(name, address)
        stats = self._stats.sources[name]
        stats.restarts, stats.failed_at = stats.restarts + 1, trio.current_time()
        stats.last_error = summarize(error)


def _build(
    assembly: Assembly, name: str
) -> tuple[Source, SourceFilter | None, RecordSplitter | None]:
    return assembly.source(name), assembly.source_filter(name), assembly.splitter(name)


def _pairs(binds: Mapping[str, list[BindAddress]]) -> Iterator[tuple[str, BindAddress]]:
    for name, addresses in binds.items():
        yield from ((name, address) for address in addresses)


def _binds(config: RelayConfig) -> dict[str, list[BindAddress]]:
    """Where each source listens."""
    return {
        name: source.binds if isinstance(source, Listening) else []
        for name, source in config.sources.items()
    }
