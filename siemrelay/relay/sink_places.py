"""The places of sinks in the buffer: of those configured, renamed, removed, and of other pools.

A sink that is missing from the file at a start may be a mistake of the person who edited it. Its
records wait as those of a disabled sink do: they stop no source, and are dropped when the buffer
needs the room.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

import structlog
import trio

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.buffer.sink_cursor import SinkPolicy
from siemrelay.buffer.threads import in_thread
from siemrelay.config.models import RelayConfig
from siemrelay.core.errors import StartRefused
from siemrelay.core.times import rfc3339
from siemrelay.relay.pauses import Pauses
from siemrelay.telemetry.stats import BufferStats

_log = structlog.get_logger()


class SinkPlaces:
    """Decides which places are kept. The buffer keeps since when each sink is removed."""

    def __init__(
        self, buffer: DiskBuffer, stats: BufferStats, pauses: Pauses, other_pools: Collection[str]
    ) -> None:
        """`other_pools` names sinks of this configuration that another relay runs."""
        self._buffer, self._stats, self._pauses = buffer, stats, pauses
        self._other_pools = other_pools

    def begin(self, config: RelayConfig) -> None:
        """Give each sink its place at a start; logs what becomes of all others."""
        self._stats.keep_removed_s = config.buffer.keep_removed
        places = self._buffer.places
        renamed = {
            sink.renamed_from: name
            for name, sink in config.sinks.items()
            if sink.renamed_from is not None and sink.renamed_from in places and name not in places
        }
        removed = self._kept({*config.sinks, *self._other_pools, *renamed})
        self._pauses.take_over(renamed)
        policies = self._policies(config, removed)
        for name in places.keys() & {*self._other_pools}:
            _log.warning("a sink of another pool has a cursor in this buffer and holds records "
                         "back; give each pool its own `state_dir`", sink=name)  # fmt: skip
        gone = places.keys() - policies.keys() - renamed.keys()
        with self._dropping(gone, gone):
            self._buffer.set_sinks(policies, renamed, removed)
        for old, new in renamed.items():
            _log.info("sink renamed", sink=new, before=old, undelivered=self.backlog(new))
        for line in self.advice(config):
            _log.warning(line)

    async def change(
        self, config: RelayConfig, renamed: Mapping[str, str], gone: Iterable[str],
        discard: Collection[str],
    ) -> None:  # fmt: skip
        """Give each sink its place by a new configuration; those in `discard` are dropped.

        `renamed`: former name → new one; `gone`: the sinks that have no place any more. Raises
        StartRefused when that cannot be stored.
        """
        await in_thread(self._pauses.take_over, renamed)
        not_removed = {*discard, *renamed, *config.sinks}
        try:
            await self._store(config, not_removed, gone, discard, renamed)
        except StartRefused:
            # The old sinks go on: one that is paused gets nothing now either.
            back = {new: old for old, new in renamed.items()}
            await in_thread(self._pauses.take_over, back)
            raise
        self._stats.keep_removed_s = config.buffer.keep_removed

    async def drop_expired(self, config: RelayConfig) -> None:
        """Drop the places of removed sinks that were kept for `keep_removed`."""
        before = time.time() - self._stats.keep_removed_s
        expired = [name for name, at in self._buffer.removed.items() if at <= before]
        if expired:
            with trio.CancelScope(shield=True):
                await self._store(config, expired, expired, expired, {})

    def backlog(self, name: str) -> int:
        """The records that wait for a sink."""
        return self._buffer.end - self._buffer.cursor(name).next_sequence

    @property
    def removed(self) -> Mapping[str, int]:
        """The sinks that are no longer configured and have a place, and since when (seconds)."""
        return self._buffer.removed

    def advice(self, config: RelayConfig) -> list[str]:
        """For each sink that cannot take the place of its former name: what to do instead."""
        found = []
        for name, sink in config.sinks.items():
            before = sink.renamed_from
            if before in self._buffer.removed:
                first, own = self._buffer.cursor(before), self._buffer.cursor(name)
                to = own.first_sequence - 1
                found.append(
                    f"sink {name} has a place of its own and does not take that of {before}: send "
                    f"the records of {before} with `siemrelay buffer replay {name} --from "
                    f"{first.next_sequence} --to {to}`, then reload with --discard-backlog {before}"
                )
        return found

    def _kept(self, claimed: Collection[str]) -> dict[str, int]:
        """The places of removed sinks to keep at a start, and since when; logs each."""
        keep_s, now = self._stats.keep_removed_s, int(time.time())
        kept: dict[str, int] = {}
        for name in self._buffer.places.keys() - claimed:
            at = self._buffer.removed.get(name, now)
            if at + keep_s > now:
                kept[name] = at
                _log.warning(
                    "a sink is no longer configured; its records are kept", sink=name,
                    undelivered=self._waiting(name), until=rfc3339(at + keep_s),
                    advice="configure it again, set `renamed_from` on the sink that takes its "
                    f"place, or drop them: `siemrelay reload --discard-backlog {name}`",
                )  # fmt: skip
        return kept

    def _policies(self, config: RelayConfig, removed: Collection[str]) -> dict[str, SinkPolicy]:
        policies: dict[str, SinkPolicy] = {}
        for name, sink in config.sinks.items():
            when_full = sink.when_full or config.buffer.when_full
            policies[name] = SinkPolicy(
                when_full == "drop_oldest",
                sink.start_at == "oldest",
                sink.enabled and name not in self._pauses,
            )
        for name in removed:
            policies[name] = SinkPolicy(enabled=False)
        for name in self._buffer.places.keys() & {*self._other_pools}:
            # This buffer delivered to it before: what it has not received is kept.
            policies[name] = SinkPolicy()
        return policies

    async def _store(
        self, config: RelayConfig, not_removed: Collection[str], gone: Iterable[str],
        unfinished: Collection[str], renamed: Mapping[str, str],
    ) -> None:  # fmt: skip
        removed = {name: at for name, at in self._buffer.removed.items() if name not in not_removed}
        with self._dropping(gone, unfinished):
            await self._buffer.change_sinks(self._policies(config, removed), renamed, removed)

    @contextmanager
    def _dropping(self, names: Iterable[str], unfinished: Collection[str]) -> Iterator[None]:
        """Log and count what is lost with the places of these sinks, if the block drops them.

        All others than the `unfinished` ones have everything that is theirs.
        """
        waiting = {name: self._waiting(name) if name in unfinished else 0 for name in names}
        yield
        for name, records in waiting.items():
            self._stats.discarded += records
            log = _log.error if records else _log.info
            log("the place of a removed sink is dropped", sink=name, undelivered=records)

    def _waiting(self, name: str) -> int:
        return self._buffer.end - self._buffer.places[name].next_sequence
