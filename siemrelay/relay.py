"""The running relay: builds the parts from the configuration, starts, drains and stops them.

    run ─ house nursery: signals, endpoint, watchdog, buffer upkeep
       └ sinks     (on stop: until every reachable one is at the end, or the deadline)
          ├ per sink: supervise(deliver)
          └ sources   (cancelled first on stop)
             ├ committer
             └ per source: supervise(read)
"""

from __future__ import annotations

import gc
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import structlog
import trio

from siemrelay import __version__, registry
from siemrelay.buffer.disk import DiskBuffer
from siemrelay.catalogue import Catalogue
from siemrelay.config.load import Loaded
from siemrelay.config.models import SinkConfig, SourceConfig, declared_catalogue
from siemrelay.decoded import DecodedCache
from siemrelay.delivery import Delivery, Retry
from siemrelay.endpoint import open_endpoint, serve
from siemrelay.filters import EventFilter
from siemrelay.formats.contract import Format
from siemrelay.health import stuck
from siemrelay.intake import Committer
from siemrelay.notify import Notifier
from siemrelay.runs import RunMaker
from siemrelay.stats import SinkStats, SourceStats, Stats
from siemrelay.supervise import supervise

_log = structlog.get_logger()

# How often the loop proves that it runs, and gauges are brought up to date.
_TICK_S: Final = 1.0

# Events live for a batch and hold no cycles; the collector need not look at them by the thousand.
_GC_THRESHOLD: Final = 50_000


class Relay:
    """One relay on one state directory. `run` it once."""

    def __init__(self, loaded: Loaded, *, stats: Stats | None = None) -> None:
        self._config = loaded.config
        self.stats = stats or Stats()
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
        listener = await open_endpoint(config.endpoint.address)
        with DiskBuffer(
            config.state_dir, max_size_bytes=config.buffer.max_size, keep_s=config.buffer.keep,
            stats=stats.buffer,
        ) as buffer:  # fmt: skip
            deliveries = self._build_sinks(buffer)
            committer = Committer(buffer, stats)
            sources = self._build_sources()
            gc.collect()
            gc.freeze()
            gc.set_threshold(_GC_THRESHOLD)
            async with trio.open_nursery() as house:
                if signals:
                    house.start_soon(self._watch_signals)
                if listener is not None:
                    house.start_soon(serve, listener, stats, partial(self._refresh, buffer))
                house.start_soon(self._tick, buffer)
                house.start_soon(buffer.run)
                async with trio.open_nursery() as sinks:
                    for name, delivery in deliveries.items():
                        sinks.start_soon(supervise, f"sink {name}", delivery.run, delivery.failed)
                    await self._run_sources(sources, committer, drain)
                    await self._drain(buffer, None if drain else config.shutdown_timeout)
                    sinks.cancel_scope.cancel()
                house.cancel_scope.cancel()
            at_end = all(
                buffer.place(name).next_sequence == buffer.end for name in deliveries
            )
            self._refresh_backlog(buffer)
            await buffer.flush()
        _log.info("stopped", undelivered={n: s.backlog for n, s in stats.sinks.items()})
        return at_end

    # -- building ---------------------------------------------------------

    def _build_sinks(self, buffer: DiskBuffer) -> dict[str, Delivery]:
        config, stats, host = self._config, self.stats, socket.gethostname()
        catalogue = declared_catalogue(config.event_types)
        places: dict[str, tuple[bool, bool]] = {}
        parts: dict[str, tuple[SinkConfig, EventFilter, Format]] = {}
        for name, sink in config.sinks.items():
            when_full = sink.when_full or config.buffer.when_full
            places[name] = (when_full == "drop_oldest", sink.start_at == "oldest")
            stats.sinks[name] = SinkStats(name, since=time.time(), progress_at=trio.current_time())
            if not sink.enabled:
                stats.sinks[name].state, stats.sinks[name].reason = "disabled", "enabled: no"
                continue
            form = registry.build_format(sink.format, sink.header, sink, host)
            parts[name] = (sink, EventFilter(sink.events, catalogue), form)
        for gone in buffer.set_sinks(places):
            _log.warning("sink is no longer configured; its records are not held back", sink=gone)
        decoded = self._decoded(catalogue, parts)
        return {
            name: _delivery(name, *part, decoded, buffer, stats.sinks[name])
            for name, part in parts.items()
        }

    def _decoded(
        self, catalogue: Catalogue, parts: dict[str, tuple[SinkConfig, EventFilter, Format]]
    ) -> DecodedCache:
        wanted: frozenset[str] = frozenset()
        for _, events, form in parts.values():
            wanted |= events.fields | form.fields
        decoders = {
            name: _decoder(source, wanted, catalogue)
            for name, source in self._config.sources.items()
        }
        fallback = registry.DECODERS["json"].build(registry.PRODUCTS["generic"], wanted, catalogue)
        return DecodedCache(decoders, fallback, share=len(parts) > 1)

    def _build_sources(self) -> dict[str, Any]:
        built = {}
        for name, source in self._config.sources.items():
            built[name] = registry.SOURCES[source.type].build(name, source)
            self.stats.sources[name] = SourceStats(name, progress_at=trio.current_time())
        return built

    # -- running ----------------------------------------------------------

    async def _run_sources(self, sources: dict[str, Any], committer: Committer, drain: bool) -> None:
        """Until the stop, or with `drain` until all sources are at their end and stored."""
        async with trio.open_nursery() as upkeep:
            upkeep.start_soon(committer.run)
            intakes = {name: committer.intake(name) for name in sources}
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
            self.stats.sources[name].last_error = str(error)

        return note

    async def _drain(self, buffer: DiskBuffer, timeout_s: float | None) -> None:
        """Until sinks are at the end: all of them, or with a timeout those that are reachable."""

        def waiting() -> bool:
            return any(
                buffer.place(name).next_sequence < buffer.end
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

    async def _watch_signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
            async for number in received:
                if self._stop.is_set():
                    _log.warning("stopping at once", signal=signal.Signals(number).name)
                    raise SystemExit(128 + number)
                _log.info("stopping", signal=signal.Signals(number).name)
                self.stop()

    async def _tick(self, buffer: DiskBuffer) -> None:
        interval = min(_TICK_S, self._notifier.watchdog_interval_s)
        while True:
            self.stats.loop_at = trio.current_time()
            self._refresh_backlog(buffer)
            found = stuck(self.stats, trio.current_time())
            if found:
                _log.error("no progress", parts=found)
            else:
                self._notifier.alive(_status(self.stats))
            await trio.sleep(interval)

    def _refresh_backlog(self, buffer: DiskBuffer) -> None:
        for name, sink in self.stats.sinks.items():
            place = buffer.place(name)
            sink.backlog, sink.dropped = buffer.end - place.next_sequence, place.dropped

    async def _refresh(self, buffer: DiskBuffer) -> None:
        """Bring the gauges that need the disk up to date, for a scrape."""
        self._refresh_backlog(buffer)
        for name, sink in self.stats.sinks.items():
            sequence = buffer.place(name).next_sequence
            behind = sequence < buffer.end
            sink.oldest_undelivered_at = await buffer.received_at(sequence) if behind else None


def _decoder(
    source: SourceConfig, wanted: frozenset[str], catalogue: Catalogue
) -> registry.Decoder:
    spellings = dict(registry.PRODUCTS[source.product])
    for field, path in source.fields.items():
        spellings[field] = (path, *spellings.get(field, ()))
    return registry.DECODERS[source.decoder].build(spellings, wanted, catalogue)


def _delivery(
    name: str, sink: SinkConfig, events: EventFilter, form: Format, decoded: DecodedCache,
    buffer: DiskBuffer, stats: SinkStats,
) -> Delivery:  # fmt: skip
    kind = registry.PROTOCOLS[sink.protocol]
    limits = kind.limits(sink)
    cut = min(filter(None, (sink.max_message_size, kind.max_message_bytes)), default=None)
    maker = RunMaker(decoded, events, form, limits, cut, stats)
    return Delivery(
        name, kind.build(sink), maker, limits, buffer, stats,
        Retry(sink.retry.initial, sink.retry.max),
    )  # fmt: skip


def _status(stats: Stats) -> str:
    troubled = [f"{s.name} {s.state}" for s in stats.sinks.values()
                if s.state in ("waiting", "holding")]  # fmt: skip
    backlog = max((sink.backlog for sink in stats.sinks.values()), default=0)
    state = ", ".join(troubled) if troubled else "all sinks up"
    return f"{state}; largest backlog {backlog} records"


