"""The batches that a sink has sent and the receiver has not settled: ordered and bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from siemrelay.net.tasks import Broadcast, Mutex
from siemrelay.pipeline.batching import DeliveryBatch
from siemrelay.sinks.contract import ConfirmsEarly, Session

# A fast sink over a long distance needs megabytes on the way. They stay in memory until they are
# settled, and after a broken connection they are sent again. Many sinks share a budget: a hundred
# that are up hold 8 MiB or a batch each, not 400 MiB.
_MAX_BYTES: Final = 4 * 1024 * 1024
_ALL_SINKS_BYTES: Final = 8 * 1024 * 1024


class InFlight:
    """The queue between one session's sender and its settler.

    Each entry is a batch with the ticket that `Session.send` returned for it. Neither side yields
    to other tasks unless it has to wait.
    """

    def __init__(
        self, session: Session, max_batches: int, share: Callable[[int], int] = int
    ) -> None:
        """`share` returns the session's part of a budget that all sinks have together."""
        self.session = session
        self.early = session if isinstance(session, ConfirmsEarly) else None
        """The session, if it may confirm a batch by the time it is sent."""
        self.sending = Mutex()
        """Held by the one that uses the session to send."""
        self._queue: deque[tuple[DeliveryBatch, Any, int]] = deque()
        self._max_batches, self._share, self._bytes = max_batches, share, 0
        self._added, self._taken = Broadcast(), Broadcast()
        self._settles = False

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight, nor being settled."""
        return not (self._queue or self._settles)

    async def wait_for_room(self) -> None:
        """Wait until less is in flight than 4 MiB and the share: one batch may always be."""
        while self._bytes and self._bytes >= min(_MAX_BYTES, self._share(_ALL_SINKS_BYTES)):
            await self._taken.wait()

    async def put(self, batch: DeliveryBatch, ticket: Any) -> None:
        """Add a batch that was sent; waits while `max_batches` are queued."""
        size_bytes = batch.size_bytes
        self._bytes += size_bytes
        while len(self._queue) >= self._max_batches:
            await self._taken.wait()
        self._queue.append((batch, ticket, size_bytes))
        self._added.wake_all()

    async def take(self) -> tuple[DeliveryBatch, Any]:
        """Remove and return the earliest batch; waits until there is one."""
        self._settles = False
        while not self._queue:
            await self._added.wait()
        self._settles = True
        batch, ticket, size_bytes = self._queue.popleft()
        self._bytes -= size_bytes
        self._taken.wake_all()
        return batch, ticket
