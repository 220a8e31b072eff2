"""Cursors on their way to disk: with the next records, or by themselves when none come."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import structlog
import trio

from siemrelay.buffer.places import Places
from siemrelay.buffer.reserve import Reserve
from siemrelay.buffer.store import Store
from siemrelay.buffer.threads import in_thread
from siemrelay.core.errors import BufferFull
from siemrelay.telemetry.stats import BufferStats

_log = structlog.get_logger()

# Cursors that move are stored with the next records, or if none come within this, by themselves: so
# much may be repeated after a crash of the process, beside what is in flight.
_PAUSE_S: Final = 0.02

# A full disk is asked again this often.
_FULL_PAUSE_S: Final = 1.0


class Cursors:
    """Stores where each sink is. `writing` is held by whoever writes to the store."""

    def __init__(
        self, store: Store, places: Places, writing: trio.Lock, reserve: Reserve, stats: BufferStats
    ) -> None:
        self._store, self._places, self._writing = store, places, writing
        self._reserve, self._stats = reserve, stats

    async def run(self, reclaim: Callable[[], Awaitable[bool]]) -> None:
        """Store them as they move, until cancelled. `reclaim` makes room on a full disk."""
        while True:
            await self._places.unstored.wait()
            commits = self._stats.commits
            await trio.sleep(_PAUSE_S)
            if self._stats.commits != commits:
                continue  # they went along with records, and will again
            self._places.unstored = trio.Event()
            try:
                await self.flush()
            except BufferFull:
                self._places.unstored.set()
                if not await reclaim():
                    await trio.sleep(_FULL_PAUSE_S)

    async def flush(self) -> None:
        """Store them as they are now. Raises BufferFull."""
        async with self._writing:
            with trio.CancelScope(shield=True), self._places.being_stored() as cursors:
                if cursors:
                    await in_thread(self._store.save_cursors, cursors)

    def leave(self) -> None:
        """Store them for the last time; on a full disk with the room of the reserve."""
        with self._places.being_stored() as cursors:
            try:
                try:
                    self._store.save_cursors(cursors)
                except BufferFull:
                    self._reserve.release()
                    self._store.save_cursors(cursors)
            except BufferFull as error:
                _log.error("cursors are not stored: what was delivered lately is sent again",
                           reason=str(error), advice="make room under state_dir")  # fmt: skip
