"""Small pieces for tasks that work together: a broadcast, and a task beside a session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from siemrelay.core.errors import decisive


class Broadcast:
    """Wakes every task that waits now; one that begins to wait later waits for the next time.

    Look at the state and wait without an `await` in between, or a change is missed.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting = trio.lowlevel.ParkingLot()

    def wake_all(self) -> None:
        """Wake them, in the order in which they came. Costs next to nothing while nobody waits."""
        self._waiting.unpark_all()

    async def wait(self) -> None:
        """Wait for the next `wake_all`. Nothing is left behind when cancelled."""
        await self._waiting.park()


@asynccontextmanager
async def beside(task: Callable[[], Awaitable[None]]) -> AsyncIterator[trio.Nursery]:
    """Run `task`, and what is started in the nursery, until the context ends.

    The tasks and the body may notice the same break: of several DeliveryErrors the one that lasts
    longest is raised (see `decisive`). What else they raise comes through as trio groups it.
    """
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task)
            try:
                yield nursery
            finally:
                # When the body fails the nursery would cancel by itself, from the function that
                # then makes the group. The frames of each Cancelled lead back to there, so the
                # group would hold itself.
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # No variable here has the error: it would hold this frame, and the frame the error.
        raise decisive(group) from group
