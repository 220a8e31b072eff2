"""The sinks of a running relay: built, started, changed, drained."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec
import structlog
import trio

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.config.models import RelayConfig
from siemrelay.core.errors import BufferFull
from siemrelay.core.event_types import STATE_DOUBTED
from siemrelay.pipeline.delivery import Delivery
from siemrelay.pipeline.format_cache import FormatCache
from siemrelay.pipeline.observer import Observers
from siemrelay.pipeline.workers.cores import most_workers
from siemrelay.pipeline.workers.pool import WorkerPool
from siemrelay.proof.stream import DOUBTS
from siemrelay.relay.assembly import Assembly, SinkParts, delivery
from siemrelay.relay.pauses import Pauses
from siemrelay.relay.plan import Plan
from siemrelay.relay.sink_places import SinkPlaces
from siemrelay.relay.supervise import RunningParts
from siemrelay.telemetry.stats import SinkStats, Stats

if TYPE_CHECKING:
    from siemrelay.pipeline.sealing.keys import SealKeys
    from siemrelay.pipeline.sealing.sealed_stream import SealedStream

_log = structlog.get_logger()

# A sink may also leave the drain by failing, which moves no cursor: the drain looks this often.
_LOOK_EVERY_S: Final = 1.0

# A receiver that has just confirmed the last record has this long for the last seal.
_LAST_SEAL_S: Final = 5.0


class SinkGroup:
    """Every configured sink, and the places of all in the buffer."""

    def __init__(
        self, config: RelayConfig, other_pools: Collection[str], assembly: Assembly,
        buffer: DiskBuffer, stats: Stats, pauses: Pauses, observers: Observers,
        pool: WorkerPool,
    ) -> None:  # fmt: skip
        """`other_pools`: see `SinkPlaces`. Each sink gets its place in the buffer."""
        self._pauses, self._observers = pauses, observers
        self._buffer, self._stats = buffer, stats
        self._running: RunningParts
        self._stamping: RunningParts
        self.note_event: Callable[..., None] = lambda *values, **attributes: None
        """Notes an event of the relay's own, as `SelfAudit.note`."""
        self._parts: dict[str, SinkParts] = {}
        self._deliveries: dict[str, Delivery] = {}
        self.places = SinkPlaces(buffer, stats.buffer, pauses, other_pools)
        self.places.begin(config)
        self._pool, self._formatted = pool, FormatCache(assembly.formatter({}), pool)
        parts = {name: assembly.sink(name) for name in config.sinks}
        keys = _seal_keys(config, assembly, parts)
        self._install(config, assembly, parts, keys, restarted=set(), renamed={})

    def _install(
        self, config: RelayConfig, assembly: Assembly, parts: dict[str, SinkParts],
        keys: Mapping[str, SealKeys], *, restarted: Collection[str], renamed: Mapping[str, str],
    ) -> None:  # fmt: skip
        """Make `parts` the sinks; those that are new or in `restarted` get a new delivery.

        `keys` are those of the sealed ones among these. `renamed`, old names by new ones, keep
        their counts of this process. Never raises: the places in the buffer are new already.
        """
        enabled = {
            name: each.messages for name, each in parts.items() if config.sinks[name].enabled
        }
        self._formatted.replace_formatter(assembly.formatter(enabled))
        self._pool.set_tables(lambda: assembly.formatter_recipe([*enabled]).pickled())
        self._pool.set_most(most_workers(config.workers))
        before = {new: self._stats.sinks.get(old) for old, new in renamed.items()}
        for name in self._parts.keys() - parts.keys():
            del self._stats.sinks[name]
            self._deliveries.pop(name, None)
        for name, each in parts.items():
            if name in self._parts and name not in restarted:
                continue
            stats = SinkStats(name, since=time.time(), progress_at=trio.current_time())
            if (former := before.get(name)) is not None:
                stats = msgspec.structs.replace(
                    former, name=name, since=stats.since, state=stats.state, reason=stats.reason,
                    progress_at=stats.progress_at,
                )  # fmt: skip
            self._stats.sinks[name] = stats
            stats.counts = self._buffer.cursor(name).counts
            self._deliveries.pop(name, None)
            if config.sinks[name].enabled:
                self._deliveries[name] = delivery(
                    each, self._formatted, self._buffer, stats, self._observers.deliveries,
                    self._stream(config, assembly, each, keys.get(name), stats),
                )  # fmt: skip
                if name in self._pauses:
                    self._note_paused(stats)
            else:
                stats.state, stats.reason = "disabled", "enabled: no"
        self._parts = parts

    def _stream(
        self, config: RelayConfig, assembly: Assembly, parts: SinkParts, keys: SealKeys | None,
        stats: SinkStats,
    ) -> SealedStream | None:  # fmt: skip
        settings = assembly.stream(parts.name)
        if settings is None or keys is None:
            return None
        # A start pays for the parts that it has.
        from siemrelay.pipeline.sealing.maker import SealMaker
        from siemrelay.pipeline.sealing.sealed_stream import SealedStream

        seal = config.sinks[parts.name].seal
        stamper = None
        if seal is not None and seal.timestamp is not None:
            # With an HTTP client.
            from siemrelay.pipeline.sealing.timestamps import Timestamper

            stamper = Timestamper(parts.name, seal.timestamp, stats)
        maker = SealMaker(settings, parts.messages, self._seals)
        return SealedStream(
            settings, maker, self._buffer, keys, stats, stamper, self._note_new_stream
        )

    def _note_new_stream(self, sink: str, stream: str, cause: str) -> None:
        text = f"The seals of sink {sink} begin a new stream: {DOUBTS[cause]}"
        self.note_event(STATE_DOUBTED, text, sink=sink, outcome="failure", stream=stream)

    def _seals(self) -> dict[str, tuple[int, str]]:
        """The latest seal of each stream, by origin."""
        streams = [each.stream for each in self._deliveries.values() if each.stream is not None]
        return dict(filter(None, (stream.latest() for stream in streams)))

    def start(self, nursery: trio.Nursery) -> None:
        """Start every enabled sink in the nursery; each restarts by itself when it fails."""
        self._running = RunningParts("sink", nursery)
        self._stamping = RunningParts("time stamps of sink", nursery)
        self._start_missing()

    def _start_missing(self) -> None:
        for name, each in self._deliveries.items():
            if name not in self._running and name not in self._pauses:
                self._running.start(name, each.run, each.failed)
                if each.stream is not None and (stamper := each.stream.timestamper) is not None:
                    self._stamping.start(name, stamper.run, lambda error: None)

    async def _stop(self, name: str) -> None:
        await self._stamping.stop(name)
        await self._running.stop(name)

    async def restart(self, name: str) -> None:
        """Stop an enabled sink and start it again, from its cursor."""
        await self._stop(name)
        self._start_missing()

    @property
    def names(self) -> list[str]:
        """The configured sinks."""
        return list(self._parts)

    def enabled(self, name: str) -> bool | None:
        """Whether the configuration enables that sink; None if it has none of that name."""
        return self._parts[name].config.enabled if name in self._parts else None

    async def pause(self, name: str) -> None:
        """Stop an enabled sink that `pauses` names now; batches without confirmation wait, too.

        Like a disabled sink it keeps its records until the buffer needs the room, and nobody waits
        for it.
        """
        await self._stop(name)
        self._note_paused(self._stats.sinks[name])
        self._buffer.set_enabled(name, enabled=False)
        # However the relay ends, what was delivered before the pause is not repeated after it.
        with suppress(BufferFull):  # a full disk must not keep anybody from stopping a delivery
            await self._buffer.flusher.flush()

    def resume(self, name: str) -> None:
        """Start a paused sink again, from its cursor."""
        stats = self._stats.sinks[name]
        stats.state, stats.reason, stats.since = "connecting", "", time.time()
        stats.progress_at = trio.current_time()
        self._buffer.set_enabled(name, enabled=True)
        self._start_missing()

    def _note_paused(self, stats: SinkStats) -> None:
        stats.state, stats.reason = "paused", self._pauses.reason(stats.name)
        stats.since = self._pauses.since(stats.name)

    async def change(
        self, plan: Plan, config: RelayConfig, assembly: Assembly, discard: Collection[str] = ()
    ) -> None:
        """Make the changes of a plan; sinks that it does not name are not touched.

        Every new part is built before an old one stops, so that a failure to build changes nothing.
        A stopped sink sends again what had no confirmation. The places of sinks in `discard` are
        dropped. Raises StartRefused when the cursors cannot be stored or a signing key cannot be
        used; then the old sinks go on.
        """
        renamed = plan.renamed("sink")
        affected = {*plan.names("sink", "restart", "add", "rename")}
        parts = {
            # What a sink's messages are made of also depends on its sources (`add`, former names).
            name: assembly.sink(name) if name in affected else msgspec.structs.replace(
                self._parts[name], messages=assembly.sink_format(name)
            )
            for name in config.sinks
        }  # fmt: skip
        keys = _seal_keys(config, assembly, affected)
        stopped = (*plan.names("sink", "restart", "remove"), *renamed)
        await self._settle_streams(stopped)
        for name in stopped:
            await self._stop(name)
        gone = [*plan.names("sink", "remove"), *(self.places.removed.keys() & {*discard})]
        try:
            await self.places.change(config, renamed, gone, discard)
            self._install(config, assembly, parts, keys, restarted=affected, renamed=renamed)
            await self._pauses.keep_only(config.sinks)
        finally:
            self._start_missing()

    async def _settle_streams(self, names: Collection[str]) -> None:
        """Let sealed sinks that will be stopped have the confirmation of what they have sent."""
        async with trio.open_nursery() as nursery:
            for name in names:
                each = self._deliveries.get(name)
                if each is not None and each.stream is not None and name in self._running:
                    nursery.start_soon(each.stream.settle, _LAST_SEAL_S if self.is_up(name) else 0)

    def is_up(self, name: str) -> bool:
        """Whether a sink delivers, or has not yet failed to."""
        return self._stats.sinks[name].state in ("up", "connecting")

    async def let_finish(self, names: Collection[str], timeout_s: float) -> dict[str, int]:
        """Let sinks that will be removed have what is stored now, if they are up.

        Returns how many of these records wait for each after at most `timeout_s`.
        """
        end = self._buffer.end

        def left(name: str) -> int:
            return max(end - self._buffer.cursor(name).next_sequence, 0)

        with trio.move_on_after(timeout_s):
            while any(left(name) and self.is_up(name) for name in names):
                with trio.move_on_after(_LOOK_EVERY_S):
                    await self._buffer.wait_settled()
        return {name: left(name) for name in names}

    def try_again(self) -> list[str]:
        """Let the sinks that pause after a failure try again at once; returns their names."""
        return [name for name, each in self._deliveries.items() if each.try_again()]

    def at_end(self) -> bool:
        """Whether every enabled sink that is not paused has settled every stored record."""
        return not self._undrained(reachable_only=False)

    async def drain(self, timeout_s: float | None) -> None:
        """Wait until the sinks are at the end of the buffer.

        With a timeout only for the sinks that are up, and no longer than that; without one for all
        enabled sinks that are not paused, for ever.
        """
        deadline = float("inf") if timeout_s is None else trio.current_time() + timeout_s
        reachable_only = timeout_s is not None
        await self._wait_while(lambda: self._undrained(reachable_only=reachable_only), deadline)
        sealed = [each for name, each in self._deliveries.items() if self.is_up(name)]
        for each in sealed:
            if each.stream is not None:
                each.stream.seal_at_end()
        deadline = min(deadline, trio.current_time() + _LAST_SEAL_S)
        await self._wait_while(
            lambda: not all(each.stream is None or each.stream.is_sealed() for each in sealed),
            deadline,
        )

    async def _wait_while(self, unfinished: Callable[[], bool], deadline: float) -> None:
        while unfinished() and trio.current_time() < deadline:
            with trio.move_on_at(min(deadline, trio.current_time() + _LOOK_EVERY_S)):
                await self._buffer.wait_settled()

    def _undrained(self, *, reachable_only: bool) -> bool:
        return any(
            self._behind(name)
            for name in self._deliveries
            if name not in self._pauses and (not reachable_only or self.is_up(name))
        )

    def _behind(self, name: str) -> bool:
        return self._buffer.cursor(name).next_sequence < self._buffer.end


def _seal_keys(
    config: RelayConfig, assembly: Assembly, names: Iterable[str]
) -> dict[str, SealKeys]:
    """The signing keys of the sealed and enabled ones of these sinks, made where there are none.

    Raises StartRefused.
    """
    found: dict[str, SealKeys] = {}
    for name in names:
        sink, settings = config.sinks[name], assembly.stream(name)
        if not sink.enabled or settings is None:
            continue
        # A start pays for the parts that it has.
        from siemrelay.pipeline.sealing.keys import SealKeys

        keys = SealKeys(config.state_dir, settings.relay, sink.seal.key if sink.seal else None)
        keys.make()
        found[name] = keys
    return found
