"""Tasks beside a session: they live as long as the session, and whichever fails ends all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from siemrelay.core.errors import decisive


@asynccontextmanager
async def beside(task: Callable[[], Awaitable[None]]) -> AsyncIterator[trio.Nursery]:
    """Run `task`, and what is started in the nursery, until the context ends.

    Raises the one DeliveryError that says most: the tasks and the body may notice the same break.
    What else they raise comes through as trio groups it.
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
