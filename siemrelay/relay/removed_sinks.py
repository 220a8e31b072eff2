"""The places of sinks that the configuration no longer has, kept for a while.

A sink that is missing from the file at a start may be a mistake of the person who edited it. Its
records wait as those of a disabled sink do: they stop no source, and are dropped when the buffer
needs the room.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

import structlog

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.config.models import RelayConfig
from siemrelay.core.times import rfc3339
from siemrelay.telemetry.stats import BufferStats

_log = structlog.get_logger()


class RemovedSinks:
    """Decides which places are kept. The buffer keeps since when each sink is removed."""

    def __init__(self, buffer: DiskBuffer, stats: BufferStats) -> None:
        self._buffer, self._stats = buffer, stats

    def at_start(self, config: RelayConfig, claimed: Collection[str]) -> dict[str, int]:
        """The places to keep, and since when; logs each. `claimed` are those of other sinks."""
        self.configure(config)
        keep_s, now = self._stats.keep_removed_s, int(time.time())
        kept: dict[str, int] = {}
        for name in self._buffer.places.keys() - {*config.sinks, *claimed}:
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

    def configure(self, config: RelayConfig) -> None:
        """Keep places for as long as this configuration says."""
        self._stats.keep_removed_s = config.buffer.keep_removed

    def expired(self) -> list[str]:
        """The places that have been kept for `keep_removed`."""
        before = time.time() - self._stats.keep_removed_s
        return [name for name, at in self._buffer.removed.items() if at <= before]

    def without(self, names: Collection[str]) -> dict[str, int]:
        """The places that are kept, but for these."""
        return {name: at for name, at in self._buffer.removed.items() if name not in names}

    @contextmanager
    def dropping(self, names: Iterable[str], unfinished: Collection[str]) -> Iterator[None]:
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
