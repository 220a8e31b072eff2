"""The sources of a running relay, with the committer that stores what they read."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import trio

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.config.models import RelayConfig
from siemrelay.pipeline.intake import Committer, SourceIntake
from siemrelay.pipeline.source_filter import SourceFilter
from siemrelay.relay.assembly import Assembly
from siemrelay.relay.parts import RunningParts
from siemrelay.relay.plan import Plan
from siemrelay.relay.supervise import summarize
from siemrelay.sources.contract import Source
from siemrelay.telemetry.stats import SourceCounts, SourceStats, Stats


class SourceGroup:
    """Every configured source. Nothing is opened before `run`."""

    def __init__(
        self, config: RelayConfig, assembly: Assembly, buffer: DiskBuffer, stats: Stats
    ) -> None:
        self._buffer, self._stats = buffer, stats
        self.shutdown_s = config.shutdown_timeout
        self._committer = Committer(buffer, stats)
        self._running: RunningParts
        self._built = {name: _build(assembly, name) for name in config.sources}
        self._intakes: dict[str, SourceIntake] = {}

    async def run(self, *, drain: bool, stop: trio.Event, started: Callable[[], None]) -> None:
        """Read until `stop` is set; with `drain`, until every source is at its end.

        Calls `started` once all sources run. What was read when the sources ended is stored before
        this returns, unless the disk takes longer than `shutdown_timeout`.
        """
        async with trio.open_nursery() as storing:
            storing.start_soon(self._committer.run)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when_set, stop, nursery.cancel_scope)
                async with trio.open_nursery() as reading:
                    if not drain:  # between the stop of the last source and the start of another
                        reading.start_soon(trio.sleep_forever)
                    self._running = RunningParts("source", reading)
                    for name in self._built:
                        self._start(name, drain=drain)
                    started()
                nursery.cancel_scope.cancel()
            self._stats.stopping = True
            with trio.move_on_after(self.shutdown_s):
                for intake in self._intakes.values():
                    await intake.settled()
            storing.cancel_scope.cancel()

    def _start(self, name: str, *, drain: bool = False) -> None:
        if name not in self._stats.sources:
            before = self._buffer.source_counts.get(name, SourceCounts())
            self._stats.sources[name] = SourceStats(
                name, before.records, before.bytes, filtered=before.filtered,
            )  # fmt: skip
        self._stats.sources[name].progress_at = trio.current_time()
        source, source_filter = self._built[name]
        intake = self._intakes[name] = self._committer.intake(name, source_filter)
        read = partial(source.run, intake, drain=drain)
        self._running.start(name, read, partial(self._failed, name))

    async def change(self, plan: Plan, config: RelayConfig, assembly: Assembly) -> None:
        """Make the changes of a plan; sources that it does not name are not touched.

        Every new source is built before an old one stops. A restarted source resumes at its stored
        position: what the old one handed over is on disk before the new one starts.
        """
        affected = {*plan.names("source", "restart", "add")}
        built = {
            name: _build(assembly, name) if name in affected else self._built[name]
            for name in config.sources
        }
        self.shutdown_s = config.shutdown_timeout
        for name in plan.names("source", "restart", "remove"):
            await self._running.stop(name)
            await self._intakes.pop(name).settled()
        for name in plan.names("source", "remove"):
            gone = self._stats.sources.pop(name)
            self._buffer.source_counts[name] = SourceCounts(gone.records, gone.bytes, gone.filtered)
        self._built = built
        for name in built:
            if name in affected:
                self._start(name)

    def _failed(self, name: str, error: BaseException) -> None:
        self._stats.sources[name].restarts += 1
        self._stats.sources[name].last_error = summarize(error)


def _build(assembly: Assembly, name: str) -> tuple[Source, SourceFilter | None]:
    return assembly.source(name), assembly.source_filter(name)


async def _cancel_when_set(stop: trio.Event, scope: trio.CancelScope) -> None:
    await stop.wait()
    scope.cancel()
