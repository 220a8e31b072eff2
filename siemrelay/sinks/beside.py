"""A task beside a session: it lives as long as the session, and whichever fails ends both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from siemrelay.errors import DeliveryError
from siemrelay.sinks.stream_session import weightiest


@asynccontextmanager
async def beside(task: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run `task` until the context ends. Raises the one DeliveryError that says most.

    What else the task or the body raises comes through as trio groups it.
    """
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task)
            yield
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        found, rest = group.split(DeliveryError)
        if rest is not None:
            raise rest from None  # a stop, or an error of our own: it matters more
        assert found is not None
        raise weightiest(found) from group
