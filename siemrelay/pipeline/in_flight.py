"""What a sink has sent and not settled: in order, bounded in runs and in bytes."""

from __future__ import annotations

from typing import Any, Final

import trio

from siemrelay.pipeline.batching import DeliveryBatch

# A fast sink over a long distance needs megabytes on the way; they are held here until they are
# settled, and are sent again after a break.
_MAX_BYTES: Final = 4 * 1024 * 1024


class InFlight:
    """From the sender to the settler of one connection: runs, each with what `send` gave for it."""

    def __init__(self, max_runs: int) -> None:
        self._sent, self._settling = trio.open_memory_channel[tuple[DeliveryBatch, Any, int]](
            max_runs
        )
        self._bytes = 0
        self._landed = trio.Event()

    async def room(self) -> None:
        """Wait until one more run may be sent."""
        while self._bytes >= _MAX_BYTES:
            await self._landed.wait()

    async def put(self, run: DeliveryBatch, ticket: Any) -> None:
        """The run was sent."""
        size_bytes = run.size_bytes
        self._bytes += size_bytes
        await self._sent.send((run, ticket, size_bytes))

    async def take(self) -> tuple[DeliveryBatch, Any]:
        """The earliest run that is not settled; it is from now on. Waits until there is one."""
        run, ticket, size_bytes = await self._settling.receive()
        self._bytes -= size_bytes
        self._landed.set()
        self._landed = trio.Event()
        return run, ticket
