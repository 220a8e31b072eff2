"""Several requests in flight, settled in the order they were sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from siemrelay.core.errors import BatchRefused, DeliveryError, SinkWaits
from siemrelay.sinks.contract import Settlement

Exchange = Callable[[Sequence[bytes]], Awaitable[Settlement]]
"""Sends one run and gives what the peer said of it, or raises a DeliveryError."""


class Pending:
    """One request on its way; the ticket between `send` and `confirm`."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.wanted = trio.Event()
        self.held = False
        self.settlement: Settlement = ()
        self.error: DeliveryError | None = None


class ExchangeSession:
    """See `sinks.contract.Session`: `send` starts an exchange, `confirm` waits for its end.

    Nothing overtakes what failed: after a fault nothing more is sent; after a refusal, what was
    waiting for its turn waits on until it is asked to confirm, for then the refused run is settled.
    """

    def __init__(self, nursery: trio.Nursery, exchange: Exchange, in_flight: int) -> None:
        self._nursery, self._exchange = nursery, exchange
        # First come, first served: requests leave in the order they were handed over.
        self._slots = trio.CapacityLimiter(in_flight)
        self._queued: set[Pending] = set()
        self._broken = False

    async def send(self, messages: Sequence[bytes]) -> Pending:
        pending = Pending()
        self._queued.add(pending)
        self._nursery.start_soon(self._run, messages, pending)
        # Started at once, so that requests leave in order.
        await trio.lowlevel.checkpoint()
        return pending

    async def confirm(self, ticket: Pending) -> Settlement:
        ticket.wanted.set()
        await ticket.done.wait()
        if ticket.error is not None:
            raise ticket.error
        return ticket.settlement

    async def _run(self, messages: Sequence[bytes], pending: Pending) -> None:
        while not pending.done.is_set():
            if pending.held:
                await pending.wanted.wait()
            async with self._slots:
                if pending.held and not pending.wanted.is_set():
                    continue  # held while it waited for the slot
                self._queued.discard(pending)
                if self._broken:
                    pending.error = SinkWaits("an earlier request failed")
                else:
                    await self._try(messages, pending)
                pending.done.set()

    async def _try(self, messages: Sequence[bytes], pending: Pending) -> None:
        try:
            pending.settlement = await self._exchange(messages)
        except DeliveryError as error:
            pending.error = error
            self._broken = not isinstance(error, BatchRefused)
            for waiting in self._queued:
                waiting.held = True


@asynccontextmanager
async def open_exchanges(
    exchange: Exchange,
    *,
    in_flight: int = 1,
    beside: Callable[[], Awaitable[None]] | None = None,
) -> AsyncIterator[ExchangeSession]:
    """A session over exchanges, and what runs `beside` them; leaving the context cancels both.

    Of the exchanges `in_flight` run at a time, started in order.
    """
    async with trio.open_nursery() as nursery:
        if beside is not None:
            nursery.start_soon(beside)
        try:
            yield ExchangeSession(nursery, exchange, in_flight)
        finally:
            # Not left to the nursery: see `beside.beside`.
            nursery.cancel_scope.cancel()
