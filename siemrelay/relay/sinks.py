"""The sinks of a running relay: built with their cursors, started, drained."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Final

import structlog
import trio

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.buffer.cursors import SinkPolicy
from siemrelay.config.models import RelayConfig
from siemrelay.pipeline.decode_cache import DecodeCache
from siemrelay.pipeline.delivery import Delivery
from siemrelay.relay.assembly import Assembly, SinkParts, delivery
from siemrelay.relay.parts import RunningParts
from siemrelay.telemetry.stats import SinkStats, Stats

_log = structlog.get_logger()

# A sink may also leave the drain by failing, which moves no cursor: the drain looks this often.
_LOOK_EVERY_S: Final = 1.0


class SinkGroup:
    """Every configured sink. Building it gives each its cursor in the buffer."""

    def __init__(
        self, config: RelayConfig, other_pools: Collection[str], assembly: Assembly,
        buffer: DiskBuffer, stats: Stats,
    ) -> None:  # fmt: skip
        """`other_pools` names sinks of this configuration that another relay runs."""
        self._config, self._buffer, self._stats = config, buffer, stats
        enabled = [assembly.sink(name) for name, sink in config.sinks.items() if sink.enabled]
        for name, sink in config.sinks.items():
            stats.sinks[name] = SinkStats(name, since=time.time(), progress_at=trio.current_time())
            if not sink.enabled:
                stats.sinks[name].state, stats.sinks[name].reason = "disabled", "enabled: no"
        self._claim_cursors(other_pools)
        self._deliveries = self._build(assembly, enabled)

    def _claim_cursors(self, other_pools: Collection[str]) -> None:
        policies: dict[str, SinkPolicy] = {}
        for name, sink in self._config.sinks.items():
            when_full = sink.when_full or self._config.buffer.when_full
            policies[name] = SinkPolicy(
                when_full == "drop_oldest", sink.start_at == "oldest", sink.enabled
            )
        for name in filter(self._buffer.knows, other_pools):
            # This buffer delivered to it before: what it has not received is kept.
            policies[name] = SinkPolicy()
            _log.warning("a sink of another pool has a cursor in this buffer and holds records "
                         "back; give each pool its own `state_dir`", sink=name)  # fmt: skip
        for gone in self._buffer.set_sinks(policies):
            _log.warning("sink is no longer configured; its records are not held back", sink=gone)
        for name in self._config.sinks:
            self._stats.sinks[name].counts = self._buffer.cursor(name).counts

    def _build(self, assembly: Assembly, enabled: list[SinkParts]) -> dict[str, Delivery]:
        decoders = {name: assembly.decoder(name, enabled) for name in self._config.sources}
        fallback = assembly.decoder(None, enabled)
        cache = DecodeCache(decoders, fallback, share=len(enabled) > 1)
        return {
            parts.name: delivery(parts, cache, self._buffer, self._stats.sinks[parts.name])
            for parts in enabled
        }

    def start(self, nursery: trio.Nursery) -> None:
        """Start every enabled sink; each restarts by itself when it fails."""
        running = RunningParts("sink", nursery)
        for name, each in self._deliveries.items():
            running.start(name, each.run, each.failed)

    def at_end(self) -> bool:
        """Whether every enabled sink has settled every stored record."""
        return all(
            self._buffer.cursor(n).next_sequence == self._buffer.end for n in self._deliveries
        )

    async def drain(self, timeout_s: float | None) -> None:
        """Wait until the sinks are at the end of the buffer.

        With a timeout only for the sinks that are up, and no longer than that; without one for all
        enabled sinks, for ever.
        """
        deadline = float("inf") if timeout_s is None else trio.current_time() + timeout_s
        while self._undrained(reachable_only=timeout_s is not None):
            if trio.current_time() >= deadline:
                return
            with trio.move_on_at(min(deadline, trio.current_time() + _LOOK_EVERY_S)):
                await self._buffer.wait_settled()

    def _undrained(self, *, reachable_only: bool) -> bool:
        return any(
            self._behind(name)
            for name in self._deliveries
            if not reachable_only or self._stats.sinks[name].state == "up"
        )

    def _behind(self, name: str) -> bool:
        return self._buffer.cursor(name).next_sequence < self._buffer.end
