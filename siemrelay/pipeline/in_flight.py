"""The batches that a sink has sent and the receiver has not settled: ordered and bounded."""

from __future__ import annotations

from typing import Any, Final

import trio

from siemrelay.net.tasks import Broadcast
from siemrelay.pipeline.batching import DeliveryBatch

# A fast sink over a long distance needs megabytes on the way. They stay in memory until they are
# settled, and after a broken connection they are sent again.
_MAX_BYTES: Final = 4 * 1024 * 1024


class InFlight:
    """The queue between one connection's sender and its settler.

    Each entry is a batch with the ticket that `Session.send` returned for it.
    """

    def __init__(self, max_batches: int) -> None:
        self._sent, self._settling = trio.open_memory_channel[tuple[DeliveryBatch, Any, int]](
            max_batches
        )
        self._bytes = 0
        self._room = Broadcast()

    async def wait_for_room(self) -> None:
        """Wait until fewer than 4 MiB are in flight."""
        while self._bytes >= _MAX_BYTES:
            await self._room.wait()

    async def put(self, batch: DeliveryBatch, ticket: Any) -> None:
        """Add a batch that was sent; waits while `max_batches` are queued."""
        size_bytes = batch.size_bytes
        self._bytes += size_bytes
        await self._sent.send((batch, ticket, size_bytes))

    async def take(self) -> tuple[DeliveryBatch, Any]:
        """Remove and return the earliest batch; waits until there is one."""
        batch, ticket, size_bytes = await self._settling.receive()
        self._bytes -= size_bytes
        self._room.wake_all()
        return batch, ticket
