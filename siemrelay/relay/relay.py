"""The running relay: opens the buffer, starts the parts, and stops them in the right order.

run ─ outer nursery: signals, endpoint, heartbeat, buffer upkeep
   └ sinks     (at a stop: until every reachable one is at the end, or the deadline)
      ├ per sink: supervise(deliver)
      └ sources   (cancelled first at a stop)
         ├ committer
         └ per source: supervise(read)
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio

from siemrelay import __version__
from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.config.load import Loaded
from siemrelay.config.models import RelayConfig
from siemrelay.pipeline.intake.unparsed import ParseCheck
from siemrelay.pipeline.observer import Observers
from siemrelay.pipeline.workers.pool import WorkerPool
from siemrelay.relay.assembly import Assembly, FullDecoders, unparsed_why
from siemrelay.relay.commands.commands import Commands, audit_reload
from siemrelay.relay.commands.server import serve_control, user_name
from siemrelay.relay.heartbeat import Heartbeat
from siemrelay.relay.huge_pages import move_heap
from siemrelay.relay.pauses import Pauses
from siemrelay.relay.reload import Read, Reloader
from siemrelay.relay.self_audit import SelfAudit
from siemrelay.relay.signals import handle_signals
from siemrelay.relay.sink_group import SinkGroup
from siemrelay.relay.source_group import SourceGroup
from siemrelay.relay.supervise import supervise
from siemrelay.relay.systemd import Notifier
from siemrelay.relay.watched_files import WatchedFiles
from siemrelay.telemetry.endpoint import Endpoint, open_endpoint
from siemrelay.telemetry.endpoint_options import EndpointOptions
from siemrelay.telemetry.log import Redactor
from siemrelay.telemetry.stats import Stats
from siemrelay.telemetry.status import StatusReporter
from siemrelay.transforms.redaction.options import key_id

_log = structlog.get_logger()

# A start waits this long for the control socket.
_CONTROL_S: Final = 2.0


class Relay:
    """One relay on one state directory. `run` it once."""

    def __init__(
        self, loaded: Loaded, *, stats: Stats | None = None, redactor: Redactor | None = None,
        read: Read | None = None,
    ) -> None:  # fmt: skip
        """`read` loads the configuration again for a reload; `redactor` is the log's own."""
        self._loaded, self._config = loaded, loaded.config
        self._read = read or (lambda text, variables: loaded)
        self.stats = stats or Stats()
        self._redactor = redactor or Redactor(loaded.secrets)
        self._reporter = StatusReporter(
            self.stats, self._redactor, str(Path(loaded.file).absolute())
        )
        self._notifier = Notifier()
        self._stop = trio.Event()

    def stop(self) -> None:
        """Begin an orderly stop: sources end, sinks drain for `shutdown_timeout`."""
        if not self._stop.is_set():
            self.stats.stopping = True
            self._notifier.stopping()
            self._stop.set()

    async def run(self, *, drain: bool = False, signals: bool = True) -> bool:
        """Run until stopped; with `drain`, until everything there is has been confirmed.

        Returns whether every enabled sink was at the end. Raises StartRefused before anything was
        read, BufferBroken when the disk failed under it.
        """
        config, stats = self._config, self.stats
        _log_pseudonym_keys(config)
        stats.started_at, stats.loop_at = time.time(), trio.current_time()
        with DiskBuffer(
            config.state_dir, max_size_bytes=config.buffer.max_size, keep_s=config.buffer.keep,
            stats=stats.buffer,
        ) as buffer:  # fmt: skip
            at_end = await self._run_on(buffer, drain=drain, signals=signals)
        _log.info("stopped", undelivered={n: s.backlog for n, s in stats.sinks.items()})
        return at_end

    async def _run_on(self, buffer: DiskBuffer, *, drain: bool, signals: bool) -> bool:
        """`run`, with the buffer open."""
        config, stats = self._config, self.stats
        listener = await open_endpoint(config.endpoint.address)
        assembly = Assembly(config)
        pauses, observers = Pauses(config.state_dir), Observers()
        pool = WorkerPool(stats.workers)
        sinks = SinkGroup(config, self._loaded.elsewhere, assembly, buffer, stats, pauses,
                          observers, pool)  # fmt: skip
        sources = SourceGroup(config, assembly, buffer, stats, observers)
        heartbeat = Heartbeat(buffer, stats, self._reporter, self._notifier)
        reloader = Reloader(self._loaded, self._read, buffer, sinks, sources, self._redactor,
                            stats, self._notifier, drains=drain)  # fmt: skip
        audit = SelfAudit(
            sources.own_events.store, stats, config.state_dir, await user_name(os.geteuid()),
            lambda: reloader.config.self_audit and not drain,
        )  # fmt: skip
        sinks.note_event = audit.note
        decoders = FullDecoders(lambda: reloader.config)
        check = ParseCheck(stats, decoders, partial(_unparsed_why, reloader))
        observers.intake.append(check)
        commands = Commands(reloader, sinks, sources, pauses, buffer, stats, observers,
                            self._redactor, decoders, audit)  # fmt: skip
        listening = trio.Event()
        supervised: dict[str, Callable[[], Awaitable[None]]] = {
            "removed sinks": reloader.drop_expired,
            "watched files": WatchedFiles(reloader, stats).run,
            "workers": pool.run,
            "pauses": pauses.run,
            "parse check": check.run,
            "control socket": partial(serve_control, config.state_dir, commands.obey, listening),
        }
        async with trio.open_nursery() as outer:
            endpoint = Endpoint(outer)
            pages = partial(partial, self._serve_pages, buffer, decoders, heartbeat)
            endpoint.begin(config.endpoint.address, listener, pages(config.endpoint))
            reloader.serve_pages = lambda new: endpoint.change(new.address, pages(new))
            if signals:
                await outer.start(
                    handle_signals, self.stop, outer.cancel_scope.cancel,
                    partial(outer.start_soon, self._reload_by_signal, reloader, audit),
                )  # fmt: skip
            outer.start_soon(heartbeat.run)
            outer.start_soon(buffer.run)
            outer.start_soon(move_heap)
            for name, run in supervised.items():
                outer.start_soon(supervise, name, run, lambda error: None)
            # So that a reload right after the start finds it; events matter more than commands.
            with trio.move_on_after(_CONTROL_S):
                await listening.wait()
            async with trio.open_nursery() as delivering:
                sinks.start(delivering)
                started = partial(self._started, reloader, audit, outer)
                await sources.run(
                    drain=drain, stop=self._stop, started=started, stopped=audit.stopped
                )
                await self._drain(sinks, None if drain else sources.shutdown_s)
                audit.ended()
                delivering.cancel_scope.cancel()
            outer.cancel_scope.cancel()
        heartbeat.refresh_backlog()
        return sinks.at_end()

    async def _serve_pages(
        self, buffer: DiskBuffer, decoders: FullDecoders, heartbeat: Heartbeat,
        options: EndpointOptions, listener: trio.SocketListener,
    ) -> None:  # fmt: skip
        # With an HTTP server: a start pays for the parts that it has.
        from siemrelay.relay.recent_events import RecentEvents
        from siemrelay.telemetry.endpoint_pages import serve

        recent = RecentEvents(buffer, decoders, self._redactor, contents=options.show_events)
        await serve(listener, self.stats, self._reporter, heartbeat.refresh,
                    recent=recent.report, hosts=options.hosts)  # fmt: skip

    async def _reload_by_signal(self, reloader: Reloader, audit: SelfAudit) -> None:
        audited = audit.enabled
        audit_reload(audit, await reloader.reload(), "", always=audited)

    def _started(self, reloader: Reloader, audit: SelfAudit, nursery: trio.Nursery) -> None:
        reloader.started.set()
        audit.started(version=__version__, sources=sorted(self._config.sources),
                      sinks=sorted(self._config.sinks))  # fmt: skip
        nursery.start_soon(supervise, "self-audit", audit.run, lambda error: None)
        self.stats.ready = True
        self._notifier.ready()
        _log.info("started", version=__version__, sources=sorted(self._config.sources),
                  sinks=sorted(self._config.sinks))  # fmt: skip

    async def _drain(self, sinks: SinkGroup, timeout_s: float | None) -> None:
        """Let the sinks finish: within the timeout, or without one until a stop asks for an end."""
        async with trio.open_nursery() as nursery:
            if timeout_s is None:
                nursery.start_soon(self._stop_draining, nursery.cancel_scope)
            await sinks.drain(timeout_s)
            nursery.cancel_scope.cancel()

    async def _stop_draining(self, scope: trio.CancelScope) -> None:
        await self._stop.wait()
        scope.cancel()


def _log_pseudonym_keys(config: RelayConfig) -> None:
    """Say by which key each part makes pseudonyms: by its id, which does not give the key away."""
    for kind, parts in (("source", config.sources), ("sink", config.sinks)):
        for name, part in parts.items():
            if part.redact.key is not None:
                _log.info("pseudonym key in use; another key gives other pseudonyms",
                          key_id=key_id(part.redact.key), **{kind: name})  # fmt: skip


def _unparsed_why(reloader: Reloader, source: str, record: bytes) -> str:
    """See `unparsed_why`, for the configuration of that moment."""
    return unparsed_why(reloader.config, source, record)
