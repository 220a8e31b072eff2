"""The running relay: builds the parts from the configuration, starts, drains and stops them.

run ─ house nursery: signals, endpoint, watchdog, buffer upkeep
   └ sinks     (on stop: until every reachable one is at the end, or the deadline)
      ├ per sink: supervise(deliver)
      └ sources   (cancelled first on stop)
         ├ committer
         └ per source: supervise(read)
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog
import trio

from siemrelay import __version__
from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.buffer.cursors import SinkPolicy
from siemrelay.config.load import Loaded
from siemrelay.pipeline.decode_cache import DecodeCache
from siemrelay.pipeline.delivery import Delivery
from siemrelay.pipeline.intake import Committer
from siemrelay.pipeline.source_filter import SourceFilter
from siemrelay.relay.assembly import Assembly, SinkParts, delivery
from siemrelay.relay.supervise import supervise, words
from siemrelay.relay.systemd import Notifier
from siemrelay.sources.contract import Source
from siemrelay.telemetry.endpoint import open_endpoint, serve
from siemrelay.telemetry.health import stuck
from siemrelay.telemetry.log import Redactor
from siemrelay.telemetry.stats import SinkStats, SourceStats, Stats
from siemrelay.telemetry.status import StatusReporter

_log = structlog.get_logger()

# SIGHUP is caught, since many send it after rotating logs and by default it would end the process.
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

# How often the loop proves that it runs, and gauges are brought up to date.
_TICK_S: Final = 1.0


class Relay:
    """One relay on one state directory. `run` it once."""

    def __init__(self, loaded: Loaded, *, stats: Stats | None = None) -> None:
        self._config, self._elsewhere = loaded.config, loaded.elsewhere
        self.stats = stats or Stats()
        self._overview = StatusReporter(self.stats, Redactor(loaded.secrets))
        self._stop = trio.Event()
        self._notifier = Notifier()

    def stop(self) -> None:
        """Begin an orderly stop: sources end, sinks drain for `shutdown_timeout`."""
        self._stop.set()

    async def run(self, *, drain: bool = False, signals: bool = True) -> bool:
        """Run until stopped; with `drain`, until everything there is has been confirmed.

        Returns whether every enabled sink was at the end. Raises StartRefused before anything was
        read, BufferBroken when the disk failed under it.
        """
        config, stats = self._config, self.stats
        stats.started_at, stats.loop_at = time.time(), trio.current_time()
        with DiskBuffer(
            config.state_dir, max_size_bytes=config.buffer.max_size, keep_s=config.buffer.keep,
            stats=stats.buffer,
        ) as buffer:  # fmt: skip
            listener = await open_endpoint(config.endpoint.address)
            assembly = Assembly(config)
            deliveries = self._build_sinks(assembly, buffer)
            committer = Committer(buffer, stats)
            sources = self._build_sources(assembly)
            source_filters = {name: assembly.source_filter(name) for name in sources}
            async with trio.open_nursery() as house:
                if signals:
                    await house.start(self._watch_signals, house.cancel_scope)
                if listener is not None:
                    refresh = partial(self._refresh, buffer)
                    house.start_soon(serve, listener, stats, self._overview, refresh)
                house.start_soon(self._tick, buffer)
                house.start_soon(buffer.run)
                async with trio.open_nursery() as sinks:
                    for name, delivery in deliveries.items():
                        sinks.start_soon(supervise, f"sink {name}", delivery.run, delivery.failed)
                    await self._run_sources(sources, source_filters, committer, drain)
                    await self._drain(buffer, None if drain else config.shutdown_timeout)
                    sinks.cancel_scope.cancel()
                house.cancel_scope.cancel()
            at_end = all(buffer.cursor(name).next_sequence == buffer.end for name in deliveries)
            self._refresh_backlog(buffer)
        _log.info("stopped", undelivered={n: s.backlog for n, s in stats.sinks.items()})
        return at_end

    # -- building ---------------------------------------------------------

    def _build_sinks(self, assembly: Assembly, buffer: DiskBuffer) -> dict[str, Delivery]:
        config, stats = self._config, self.stats
        policies: dict[str, SinkPolicy] = {}
        enabled: list[SinkParts] = []
        for name, sink in config.sinks.items():
            when_full = sink.when_full or config.buffer.when_full
            policies[name] = SinkPolicy(when_full == "drop_oldest", sink.start_at == "oldest")
            stats.sinks[name] = SinkStats(name, since=time.time(), progress_at=trio.current_time())
            if sink.enabled:
                enabled.append(assembly.sink(name))
            else:
                stats.sinks[name].state, stats.sinks[name].reason = "disabled", "enabled: no"
        for name in filter(buffer.knows, self._elsewhere):
            # Run here before: what it has not got is kept for it.
            policies[name] = SinkPolicy()
            _log.warning("a sink of another pool has its place in this buffer and holds records "
                         "back; give each pool its own `state_dir`", sink=name)  # fmt: skip
        for gone in buffer.set_sinks(policies):
            _log.warning("sink is no longer configured; its records are not held back", sink=gone)
        decoders = {name: assembly.decoder(name, enabled) for name in config.sources}
        fallback = assembly.decoder(None, enabled)
        decoded = DecodeCache(decoders, fallback, share=len(enabled) > 1)
        return {
            parts.name: delivery(parts, decoded, buffer, stats.sinks[parts.name])
            for parts in enabled
        }

    def _build_sources(self, assembly: Assembly) -> dict[str, Source]:
        for name in self._config.sources:
            self.stats.sources[name] = SourceStats(name, progress_at=trio.current_time())
        return {name: assembly.source(name) for name in self._config.sources}

    # -- running ----------------------------------------------------------

    async def _run_sources(
        self, sources: dict[str, Source], source_filters: dict[str, SourceFilter | None],
        committer: Committer, drain: bool,
    ) -> None:  # fmt: skip
        """Until the stop, or with `drain` until all sources are at their end and stored."""
        async with trio.open_nursery() as upkeep:
            upkeep.start_soon(committer.run)
            intakes = {name: committer.intake(name, source_filters[name]) for name in sources}
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cancel_at_stop, nursery.cancel_scope)
                async with trio.open_nursery() as readers:
                    for name, source in sources.items():
                        run = partial(source.run, intakes[name], drain=drain)
                        readers.start_soon(supervise, f"source {name}", run, self._failed(name))
                    self.stats.ready = True
                    self._notifier.ready()
                    _log.info("started", version=__version__, sources=sorted(sources),
                              sinks=sorted(self._config.sinks))  # fmt: skip
                nursery.cancel_scope.cancel()
            self.stats.stopping = True
            with trio.move_on_after(self._config.shutdown_timeout):
                for intake in intakes.values():
                    await intake.settled()
            upkeep.cancel_scope.cancel()

    async def _cancel_at_stop(self, scope: trio.CancelScope) -> None:
        await self._stop.wait()
        self.stats.stopping = True
        self._notifier.stopping()
        scope.cancel()

    def _failed(self, name: str) -> Callable[[BaseException], None]:
        def note(error: BaseException) -> None:
            self.stats.sources[name].restarts += 1
            self.stats.sources[name].last_error = words(error)

        return note

    async def _drain(self, buffer: DiskBuffer, timeout_s: float | None) -> None:
        """Until sinks are at the end: all of them, or with a timeout those that are reachable."""

        def waiting() -> bool:
            return any(
                buffer.cursor(name).next_sequence < buffer.end
                for name, sink in self.stats.sinks.items()
                if sink.state == "up" or (timeout_s is None and sink.state != "disabled")
            )

        deadline = float("inf") if timeout_s is None else trio.current_time() + timeout_s
        async with trio.open_nursery() as nursery:
            if timeout_s is None:
                nursery.start_soon(self._cancel_at_stop, nursery.cancel_scope)
            while waiting() and trio.current_time() < deadline:
                # A sink may also leave the count by failing, which moves no cursor.
                with trio.move_on_at(min(deadline, trio.current_time() + _TICK_S)):
                    await buffer.wait_settled()
            nursery.cancel_scope.cancel()

    async def _watch_signals(
        self, house: trio.CancelScope, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """The first signal begins an orderly stop, the second one waits for no sink any more."""
        with trio.open_signal_receiver(*_SIGNALS) as received:
            task_status.started()
            async for number in received:
                if number == signal.SIGHUP:
                    _log.warning("SIGHUP changes nothing: restart to take a new configuration")
                elif self._stop.is_set():
                    _log.warning("stopping at once", signal=signal.Signals(number).name)
                    house.cancel()
                    return
                else:
                    _log.info("stopping", signal=signal.Signals(number).name)
                    self.stop()

    async def _tick(self, buffer: DiskBuffer) -> None:
        interval = min(_TICK_S, self._notifier.watchdog_interval_s)
        while True:
            self.stats.loop_at = trio.current_time()
            self._refresh_backlog(buffer)
            self._overview.sample(trio.current_time())
            found = stuck(self.stats, trio.current_time())
            if found:
                _log.error("no progress", parts=found)
            else:
                self._notifier.alive(self._overview.line())
            await trio.sleep(interval)

    def _refresh_backlog(self, buffer: DiskBuffer) -> None:
        for name, sink in self.stats.sinks.items():
            cursor = buffer.cursor(name)
            sink.backlog, sink.dropped = buffer.end - cursor.next_sequence, cursor.dropped

    async def _refresh(self, buffer: DiskBuffer) -> None:
        """Bring the gauges that need the disk up to date, for a scrape."""
        self._refresh_backlog(buffer)
        await buffer.count_dead_letters()
        for name, sink in self.stats.sinks.items():
            sequence = buffer.cursor(name).next_sequence
            behind = sequence < buffer.end
            sink.oldest_undelivered_at = await buffer.received_at(sequence) if behind else None
