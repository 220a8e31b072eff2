"""Tasks beside a session: they live as long as the session, and whichever fails ends all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from siemrelay.core.errors import DeliveryError, SinkHolds


@asynccontextmanager
async def beside(task: Callable[[], Awaitable[None]]) -> AsyncIterator[trio.Nursery]:
    """Run `task`, and what is started in the nursery, until the context ends.

    Raises the one DeliveryError that says most: the tasks and the body may notice the same break.
    What else they raise comes through as trio groups it.
    """
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task)
            yield nursery
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        found, rest = group.split(DeliveryError)
        if rest is not None:
            raise rest from None  # a stop, or an error of our own: it matters more
        assert found is not None
        raise weightiest(found) from group


def weightiest(group: BaseExceptionGroup[DeliveryError]) -> DeliveryError:
    """The one error that says most: what a person must mend comes before what passes."""
    holds, _ = group.split(SinkHolds)
    error: DeliveryError | BaseExceptionGroup[DeliveryError] = holds or group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
