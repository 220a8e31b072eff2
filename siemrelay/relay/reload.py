"""Takes a changed configuration while the relay runs: all of it, or none of it."""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio

from siemrelay import registry
from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.config.checks.missing import missing_resources
from siemrelay.config.load import Loaded
from siemrelay.config.models import RelayConfig
from siemrelay.core.errors import ConfigurationRefused, Fault, ListenRefused, StartRefused
from siemrelay.net.pem import FileState
from siemrelay.relay.assembly import Assembly
from siemrelay.relay.control import ControlAnswer
from siemrelay.relay.plan import Plan, plan
from siemrelay.relay.sink_group import SinkGroup
from siemrelay.relay.source_group import SourceGroup
from siemrelay.relay.systemd import Notifier
from siemrelay.telemetry.endpoint_options import EndpointOptions
from siemrelay.telemetry.log import Redactor, configure
from siemrelay.telemetry.stats import Stats

_log = structlog.get_logger()

# How often it is looked whether the place of a removed sink has been kept for long enough.
_EXPIRE_EVERY_S: Final = 60.0

NOTHING: Final[Mapping[str, str]] = {}

_UNCHANGED: Final = "the relay goes on with the configuration that it has"


Read = Callable[[Loaded | None, Mapping[str, str]], Loaded]
"""Loads the configuration: its files again, or the texts of what was loaded from them before; with
more variables in the environment.

Raises ConfigurationRefused.
"""


class Reloader:
    """Applies the configuration file to a running relay. One reload runs at a time.

    Parts that the new file does not change keep their connections, cursors and batches in flight
    (test_reloads_under_load_leave_untouched_parts_alone_and_leak_nothing).
    """

    def __init__(
        self, loaded: Loaded, read: Read, buffer: DiskBuffer, sinks: SinkGroup,
        sources: SourceGroup, redactor: Redactor, stats: Stats, notifier: Notifier,
        *, drains: bool,
    ) -> None:  # fmt: skip
        self._loaded, self._read, self._buffer = loaded, read, buffer
        self._notifier, self._environment = notifier, dict[str, str]()
        self._sinks, self._sources, self._drains = sinks, sources, drains
        self._redactor, self._relay_stats, self._stats = redactor, stats, stats.reload
        self._reloading = trio.Lock()
        self.serve_pages: Callable[[EndpointOptions], Awaitable[None]]
        """Serves the endpoint's pages as the options say; raises StartRefused."""
        self.started = trio.Event()
        """Set once every part has been started."""
        self._stats.succeeded_at = time.time()

    @property
    def config(self) -> RelayConfig:
        """The configuration that runs."""
        return self._loaded.config

    @property
    def tls_files(self) -> Mapping[Path, FileState | None]:
        """The PEM files of the parts, as they were before the parts could read them."""
        return self._loaded.tls_files

    @property
    def secret_files(self) -> Mapping[Path, FileState | None]:
        """The files of the secrets in use, each as it was before it was read."""
        return self._loaded.secret_files

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """Held while running parts are changed: after the start, and one change at a time."""
        await self.started.wait()
        async with self._reloading:
            yield

    async def reload(
        self, *, discard_backlog: Collection[str] = (), dry_run: bool = False,
        environment: Mapping[str, str] = NOTHING,
    ) -> ControlAnswer:  # fmt: skip
        """Load the file and make its changes. Never raises for what the file says.

        With any fault nothing changes. A sink that the file no longer has is removed only if
        nothing waits for it, or if it is in `discard_backlog`; one that is up is given
        `shutdown_timeout` to deliver what is stored by now. `environment` has new values of
        variables, which count from now on. `dry_run` only plans.
        """
        async with self.changing():
            if dry_run:
                return await self._reload(discard_backlog, environment, dry_run=True)
            self._notifier.reloading()
            try:
                return await self._reload(discard_backlog, environment, dry_run=False)
            finally:
                self._notifier.ready()

    async def _reload(
        self, discard_backlog: Collection[str], environment: Mapping[str, str], *, dry_run: bool
    ) -> ControlAnswer:
        variables = {**self._environment, **environment}
        try:
            # Reads files and asks for host names of proxies: not on the loop.
            loaded, planned = await trio.to_thread.run_sync(self._prepare, variables)
        except ConfigurationRefused as refused:
            return self._refuse([f.located(refused.file) for f in refused.faults], dry_run)
        refused_lines = self._objections(planned, discard_backlog)
        if not refused_lines:
            refused_lines = await self._unfinished(planned, discard_backlog, dry_run)
        if dry_run:
            refused_lines += await self._untaken(loaded.config)
            would = [f"would {line}" for line in planned.lines()]
            return ControlAnswer(not refused_lines, refused_lines, plan=would)
        if refused_lines:
            return self._refuse(refused_lines, dry_run)
        try:
            await self._apply(loaded, planned, discard_backlog)
        except (StartRefused, ListenRefused) as error:
            return self._refuse([str(error)], dry_run)
        self._environment = variables
        # Types of decoders, pydantic's and msgspec's values form cycles; the collector runs seldom
        # (GC_THRESHOLD), and old parts would stay for hundreds of reloads.
        gc.collect()
        again = [f"sink {name}" for name in self._sinks.try_again()]
        again += [f"source {name}" for name in await self._sources.try_again()]
        return self._succeed([*planned.lines(), *(f"try {part} again now" for part in again),
                              *self._sinks.places.advice(loaded.config)])  # fmt: skip

    async def _untaken(self, config: RelayConfig) -> list[str]:
        """Why an address of the configuration cannot be taken; changes nothing."""
        try:
            await self._sources.take_addresses(config)
        except ListenRefused as error:
            return [str(error)]
        self._sources.keep_addresses()
        return []

    def _prepare(self, variables: Mapping[str, str]) -> tuple[Loaded, Plan]:
        loaded = self._read(None, variables)
        faults, _ = missing_resources(loaded)
        if faults:
            raise ConfigurationRefused(loaded.file, faults)
        return loaded, plan(self._loaded.config, loaded.config, [*self._sinks.places.removed])

    async def take_secrets(self) -> list[Fault]:
        """Fill the secrets in again, as their files are now, and restart the parts that use them.

        The configuration stays the one that runs, whatever its file says by now. Returns the
        faults: a part that has one keeps its secrets; if one is of no part, nothing changes.
        """
        async with self.changing():
            if self._drains or self._relay_stats.stopping:
                return []
            read = partial(self._read, self._loaded, self._environment)
            try:
                loaded = await trio.to_thread.run_sync(read)
                planned = plan(self._loaded.config, loaded.config, [*self._sinks.places.removed])
                await self._apply(loaded, planned, ())
            except ConfigurationRefused as refused:
                return refused.faults
            except (StartRefused, ListenRefused) as error:
                return [Fault(str(error))]
            self._sinks.try_again()
            if planned.changes:
                _log.info("changed secrets are in use", changes=planned.lines())
            return [*loaded.kept]

    async def take_tls_files(self, section: str, name: str) -> bool:
        """Let a part use its changed TLS files; returns whether it had to be restarted for that."""
        async with self.changing():
            config, group = self.config, self._sinks if section == "sink" else self._sources
            if section == "sink" and self._sinks.enabled(name):
                once = registry.PROTOCOLS[config.sinks[name].protocol].reads_tls_once
                self._sinks.try_again()
            elif section == "source" and name in config.sources:
                once = registry.SOURCES[config.sources[name].type].reads_tls_once
                await self._sources.try_again()
            else:
                return False  # gone meanwhile
            if once and not self._relay_stats.stopping:
                await group.restart(name)
            return once

    def _objections(self, planned: Plan, discard_backlog: Collection[str]) -> list[str]:
        if self._drains:
            return ["the relay runs with --drain and ends by itself"]
        if self._relay_stats.stopping:
            return ["the relay is stopping"]
        lines = [f"`{key}` is read at the start only: restart the relay" for key in planned.fixed]
        may_go = [*planned.names("sink", "remove"), *self._sinks.places.removed]
        lines += [
            f"--discard-backlog {name}: no sink of that name is removed by this reload"
            for name in discard_backlog
            if name not in may_go
        ]
        return lines

    async def _unfinished(
        self, planned: Plan, discard_backlog: Collection[str], dry_run: bool
    ) -> list[str]:
        """Why sinks cannot be removed yet, one line each."""
        names = [n for n in planned.names("sink", "remove") if n not in discard_backlog]
        if dry_run:
            left = {name: 0 if self._sinks.is_up(name) else self._sinks.places.backlog(name)
                    for name in names}  # fmt: skip
        else:
            left = await self._sinks.let_finish(names, self._loaded.config.shutdown_timeout)
        heirs = {name: planned.alike.get(name, "the sink that takes its place") for name in left}
        return [
            f"sink {name} would be removed, and {waiting:,} records wait for it: keep it until it "
            f"has them, set `renamed_from: {name}` on {heirs[name]}, or reload with "
            f"--discard-backlog {name}"
            for name, waiting in left.items()
            if waiting
        ]

    async def drop_expired(self) -> None:
        """Drop the places of removed sinks when their time is over, until cancelled."""
        while True:
            await trio.sleep(_EXPIRE_EVERY_S)
            async with self.changing():
                await self._sinks.places.drop_expired(self._loaded.config)

    async def _apply(self, loaded: Loaded, planned: Plan, discard_backlog: Collection[str]) -> None:
        config = loaded.config
        # New secrets first, so that no line of the changed parts shows one.
        self._redactor.add(loaded.secrets)
        configure(config.log.level, config.log.format, self._redactor, loaded.file)
        assembly = Assembly(config)
        await self._sources.take_addresses(config)
        # A stop of the relay waits for a change that has begun, as it does for a commit.
        with trio.CancelScope(shield=True):
            try:
                async with (
                    self._serving_pages(config.endpoint),
                    self._sources.renaming(planned.renamed("source")),
                ):
                    await self._sinks.change(planned, config, assembly, discard_backlog)
            except StartRefused:
                self._sources.keep_addresses()
                raise
            await self._sources.change(planned, config, assembly)
        self._buffer.retention.set_limits(
            max_size_bytes=config.buffer.max_size, keep_s=config.buffer.keep
        )
        self._loaded = loaded

    @asynccontextmanager
    async def _serving_pages(self, options: EndpointOptions) -> AsyncIterator[None]:
        """Change the endpoint, and change it back if the block fails. Raises StartRefused."""
        before = self.config.endpoint
        if options == before:
            yield
            return
        await self.serve_pages(options)
        try:
            yield
        except StartRefused:
            await self.serve_pages(before)
            raise

    def _succeed(self, lines: list[str]) -> ControlAnswer:
        self._stats.successful, self._stats.succeeded_at = True, time.time()
        self._stats.error = ""
        _log.info("configuration reloaded", changes=lines)
        return ControlAnswer(True, lines)

    def _refuse(self, lines: list[str], dry_run: bool) -> ControlAnswer:
        if not dry_run:
            self._stats.successful, self._stats.error = False, lines[0]
            _log.error("reload refused", faults=lines, advice=_UNCHANGED)
        return ControlAnswer(False, lines)
