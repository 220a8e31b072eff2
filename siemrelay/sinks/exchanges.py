"""Several requests in flight, settled in the order they were sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from siemrelay.errors import DeliveryError
from siemrelay.sinks.contract import Settlement

Exchange = Callable[[Sequence[bytes]], Awaitable[Settlement]]
"""Sends one run and gives what the peer said of it, or raises a DeliveryError."""


class Pending:
    """One request on its way; the ticket between `send` and `confirm`."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.settlement: Settlement = ()
        self.error: DeliveryError | None = None


class ExchangeSession:
    """See `sinks.contract.Session`: `send` starts an exchange, `confirm` waits for its end."""

    def __init__(self, nursery: trio.Nursery, exchange: Exchange) -> None:
        self._nursery, self._exchange = nursery, exchange

    async def send(self, messages: Sequence[bytes]) -> Pending:
        pending = Pending()
        self._nursery.start_soon(self._run, messages, pending)
        # Started at once, so that requests leave in order.
        await trio.lowlevel.checkpoint()
        return pending

    async def confirm(self, ticket: Pending) -> Settlement:
        await ticket.done.wait()
        if ticket.error is not None:
            raise ticket.error
        return ticket.settlement

    async def _run(self, messages: Sequence[bytes], pending: Pending) -> None:
        try:
            pending.settlement = await self._exchange(messages)
        except DeliveryError as error:
            pending.error = error
        pending.done.set()


@asynccontextmanager
async def open_exchanges(
    exchange: Exchange, *, beside: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[ExchangeSession]:
    """A session over exchanges, and what runs `beside` them; leaving the context cancels both."""
    async with trio.open_nursery() as nursery:
        if beside is not None:
            nursery.start_soon(beside)
        yield ExchangeSession(nursery, exchange)
        nursery.cancel_scope.cancel()
