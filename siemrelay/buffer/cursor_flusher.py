"""Writes moved cursors to disk where no records take them along."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import structlog
import trio

from siemrelay.buffer.cursors import SinkCursors
from siemrelay.buffer.reserve import EmergencyReserve
from siemrelay.buffer.sqlite.store import Store
from siemrelay.buffer.threads import WriterThread
from siemrelay.core.errors import BufferFull
from siemrelay.net.tasks import Mutex, next_second

_log = structlog.get_logger()

# Moved cursors are stored with the next records once they have waited for so long, which spares
# most commits at ordinary load a page; alone on the next full second, at which the relay wakes
# anyway, if none came. After a crash of the process the deliveries of that time are repeated, and
# those in flight.
WITH_RECORDS_S: Final = 0.1

# A full disk is tried again this often.
_FULL_PAUSE_S: Final = 1.0


class CursorFlusher:
    """Writes moved cursors to the store, holding the lock `writing`."""

    def __init__(
        self, store: Store, cursors: SinkCursors, writing: Mutex, writer: WriterThread,
        reserve: EmergencyReserve,
    ) -> None:  # fmt: skip
        self._store, self._cursors, self._writing = store, cursors, writing
        self._writer, self._reserve = writer, reserve

    async def run(self, reclaim: Callable[[], Awaitable[bool]]) -> None:
        """Store cursors as they move, until cancelled. `reclaim` makes room on a full disk."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._store_late, reclaim)
            nursery.start_soon(self._store_many, reclaim)

    async def _store_late(self, reclaim: Callable[[], Awaitable[bool]]) -> None:
        while True:
            await self._cursors.wait_unstored()
            await next_second()
            await self._store_due(reclaim)

    async def _store_many(self, reclaim: Callable[[], Awaitable[bool]]) -> None:
        while True:
            await self._cursors.wait_many()
            await self._store_due(reclaim)

    async def _store_due(self, reclaim: Callable[[], Awaitable[bool]]) -> None:
        """Store the moved cursors, unless records have taken them along a moment ago."""
        if not self._cursors.waited(WITH_RECORDS_S):
            return
        try:
            await self.flush()
        except BufferFull:
            if not await reclaim():
                await trio.sleep(_FULL_PAUSE_S)

    async def flush(self) -> None:
        """Store the moved cursors now. Raises BufferFull."""
        async with self._writing:
            with self._cursors.being_stored() as cursors:
                if cursors:
                    await self._writer.run(self._store.save_cursors, cursors)

    def leave(self) -> None:
        """Store the moved cursors for the last time; on a full disk in the room of the reserve."""
        with self._cursors.being_stored() as cursors:
            try:
                try:
                    self._store.save_cursors(cursors)
                except BufferFull:
                    self._reserve.release()
                    self._store.save_cursors(cursors)
            except BufferFull as error:
                _log.error("cursors are not stored: the latest deliveries will be repeated",
                           reason=str(error), advice="make room under state_dir")  # fmt: skip
