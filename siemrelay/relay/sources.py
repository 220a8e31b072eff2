"""The sources of a running relay, with the committer that stores what they read."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import trio

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.config.models import RelayConfig
from siemrelay.pipeline.intake import Committer, SourceIntake
from siemrelay.relay.assembly import Assembly
from siemrelay.relay.parts import RunningParts
from siemrelay.relay.supervise import summarize
from siemrelay.sources.contract import Source
from siemrelay.telemetry.stats import SourceCounts, SourceStats, Stats


class SourceGroup:
    """Every configured source. Nothing is opened before `run`."""

    def __init__(
        self, config: RelayConfig, assembly: Assembly, buffer: DiskBuffer, stats: Stats
    ) -> None:
        self._stats, self._shutdown_s = stats, config.shutdown_timeout
        self._committer = Committer(buffer, stats)
        self._sources: dict[str, Source] = {}
        self._intakes: dict[str, SourceIntake] = {}
        for name in config.sources:
            before = buffer.source_counts.get(name, SourceCounts())
            stats.sources[name] = SourceStats(
                name, before.records, before.bytes, filtered=before.filtered,
                progress_at=trio.current_time(),
            )  # fmt: skip
            self._sources[name] = assembly.source(name)
            self._intakes[name] = self._committer.intake(name, assembly.source_filter(name))

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
                    running = RunningParts("source", reading)
                    for name, source in self._sources.items():
                        read = partial(source.run, self._intakes[name], drain=drain)
                        running.start(name, read, partial(self._failed, name))
                    started()
                nursery.cancel_scope.cancel()
            self._stats.stopping = True
            with trio.move_on_after(self._shutdown_s):
                for intake in self._intakes.values():
                    await intake.settled()
            storing.cancel_scope.cancel()

    def _failed(self, name: str, error: BaseException) -> None:
        self._stats.sources[name].restarts += 1
        self._stats.sources[name].last_error = summarize(error)


async def _cancel_when_set(stop: trio.Event, scope: trio.CancelScope) -> None:
    await stop.wait()
    scope.cancel()
