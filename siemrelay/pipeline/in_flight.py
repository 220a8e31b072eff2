"""The batches that a sink has sent and the receiver has not settled: ordered and bounded."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import trio

from siemrelay.core.errors import BatchRefused
from siemrelay.net.clock import Alarm
from siemrelay.net.tasks import Broadcast, Mutex
from siemrelay.pipeline.batching import DeliveryBatch
from siemrelay.sinks.contract import ConfirmsEarly, Session

# A fast sink over a long distance needs megabytes on the way. They stay in memory until they are
# settled, and after a broken connection they are sent again. Many sinks share a budget: a hundred
# that are up hold 8 MiB or a batch each, not 400 MiB.
_MAX_BYTES: Final = 4 * 1024 * 1024
_ALL_SINKS_BYTES: Final = 8 * 1024 * 1024
# So much may always be in flight: about what a hundred sinks have each.
_FEW_BYTES: Final = 64 * 1024


class InFlight:
    """The queue between one session's sender and its settler.

    Each entry is a batch with the ticket that `Session.send` returned for it. Neither side yields
    to other tasks unless it has to wait. Where the session may confirm early the sender asks after
    a batch what is confirmed by then, and the settler has a turn only if nothing is sent for a
    while, or if what is in flight would hold the sender up.
    """

    def __init__(
        self, session: Session, max_batches: int, share: Callable[[int], int] = int
    ) -> None:
        """`share` returns the session's part of a budget that all sinks have together."""
        self.session = session
        self.sending = Mutex()
        """Held by the one that uses the session to send."""
        self._early = session if isinstance(session, ConfirmsEarly) else None
        self._queue: deque[tuple[DeliveryBatch, Any, int]] = deque()
        self._max_batches, self._share, self._bytes = max_batches, share, 0
        # Invariant: when the settler is to take the earliest batch; never while there is none.
        self._due, self._taken = Alarm(), Broadcast()
        self._settles = False
        self._asked_at = -math.inf

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight, nor being settled."""
        return not (self._queue or self._settles)

    def is_time_to_ask(self, now: float) -> bool:
        """Whether the sender asks now what is confirmed: not again within half the patience.

        One question settles all that was sent meanwhile; to settle each small batch by itself costs
        half as much as to send it. While batches follow each other, the settler is not woken.
        """
        if self._early is not None:
            if now < self._asked_at + self._early.patience_s / 2:
                return False
            self._asked_at = now
        return True

    def is_confirmed(self, batch: DeliveryBatch, ticket: Any) -> bool:
        """Whether the receiver is known to have taken all of its part in a batch by now."""
        if not batch.messages:
            return True
        early = self._early
        return (
            early is not None
            and not isinstance(ticket, BatchRefused)
            and early.is_confirmed(ticket)
        )

    def earliest(self) -> tuple[DeliveryBatch, Any] | None:
        """The earliest batch that the settler has not taken; None if it settles one now."""
        if self._settles or not self._queue:
            return None
        batch, ticket, _ = self._queue[0]
        return batch, ticket

    async def wait_for_room(self) -> None:
        """Wait until less is in flight than 4 MiB and the share; 64 KiB may always be."""
        while self._bytes > _FEW_BYTES and self._bytes >= min(
            _MAX_BYTES, self._share(_ALL_SINKS_BYTES)
        ):
            await self._until_taken()

    async def put(self, batch: DeliveryBatch, ticket: Any) -> None:
        """Add a batch that was sent; waits while `max_batches` are queued."""
        size_bytes = batch.size_bytes
        self._bytes += size_bytes
        while len(self._queue) >= self._max_batches:
            await self._until_taken()
        self._queue.append((batch, ticket, size_bytes))
        patience_s = 0.0
        if self._early is not None and not isinstance(ticket, BatchRefused):
            patience_s = self._early.patience_s
        if patience_s <= 0:
            self._due.set(-math.inf)
        elif len(self._queue) == 1:
            self._due.set(trio.current_time() + patience_s)

    async def take(self) -> tuple[DeliveryBatch, Any]:
        """Remove and return the earliest batch, for the settler; waits until it is due."""
        self._settles = False
        await self._due.wait()
        self._settles = True
        batch, ticket, _ = self._queue[0]
        self.remove_earliest()
        return batch, ticket

    def remove_earliest(self) -> None:
        """Forget the earliest batch: it is settled, or about to be."""
        *_, size_bytes = self._queue.popleft()
        self._bytes -= size_bytes
        if not self._queue:
            self._due.set(math.inf)
        self._taken.wake_all()

    async def _until_taken(self) -> None:
        self._due.set(-math.inf)
        if self._early is not None:
            self._early.hurry()
        await self._taken.wait()
