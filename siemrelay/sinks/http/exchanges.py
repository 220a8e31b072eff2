"""Requests in flight: several at a time, started and settled in the order they were sent."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from enum import Enum

import trio

from siemrelay.core.errors import BatchRefused, DeliveryError, SinkWaits
from siemrelay.sinks.contract import Settlement

Exchange = Callable[[Sequence[bytes]], Awaitable[Settlement]]
"""Sends one batch and returns what the receiver refused of it, or raises a DeliveryError."""


class State(Enum):
    """The state of one ticket. Nothing overtakes a batch that failed:

    | state     | a slot is free | `confirm` waits for it | an earlier batch is refused | … fails |
    |-----------|----------------|------------------------|-----------------------------|---------|
    | `QUEUED`  | `RUNNING`      | stays                  | `PARKED`                    | `ENDED` |
    | `PARKED`  | stays          | `QUEUED`               | stays                       | `ENDED` |
    | `RUNNING` |                | stays                  | stays                       | stays   |

    A `RUNNING` ticket ends with its answer. Checked in test_exchanges.py.
    """

    QUEUED = "queued"
    PARKED = "parked"
    RUNNING = "running"
    ENDED = "ended"


class Ticket:
    """One batch, from `send` to `confirm`."""

    def __init__(self, messages: Sequence[bytes], state: State) -> None:
        self.messages, self.state = messages, state
        self.ended = trio.Event()
        self.settlement: Settlement = ()
        self.error: DeliveryError | None = None

    def end(self, error: DeliveryError | None = None) -> None:
        """Note the outcome and wake the task that confirms."""
        self.state, self.error = State.ENDED, error
        self.ended.set()


class ExchangeSession:
    """See `sinks.contract.Session`: `send` starts an exchange, `confirm` waits until it has ended.

    After a refused batch its parts are sent again, each confirmed as soon as it is sent. Until that
    is over, what was sent later is parked: a ticket that is confirmed while newer ones were sent
    shows that the refused batch is settled.
    """

    def __init__(self, nursery: trio.Nursery, exchange: Exchange, in_flight: int) -> None:
        self._nursery, self._exchange, self._slots = nursery, exchange, in_flight
        self._waiting = deque[Ticket]()  # queued and parked, in the order they were sent
        self._newest: Ticket | None = None
        self._refused = self._failed = False

    async def send(self, messages: Sequence[bytes]) -> Ticket:
        """See `sinks.contract.Session`; waits for nothing, so that requests leave in order."""
        ticket = self._newest = Ticket(messages, State.PARKED if self._refused else State.QUEUED)
        if self._failed:
            ticket.end(SinkWaits("an earlier request failed"))
        else:
            self._waiting.append(ticket)
            self._start()
        await trio.lowlevel.checkpoint()
        return ticket

    async def confirm(self, ticket: Ticket) -> Settlement:
        """See `sinks.contract.Session`."""
        if ticket.state is State.PARKED:
            self._unpark(ticket)
        await ticket.ended.wait()
        if ticket.error is not None:
            raise ticket.error
        return ticket.settlement

    def _unpark(self, ticket: Ticket) -> None:
        settled = ticket is not self._newest
        for parked in self._waiting:
            if settled or parked is ticket:
                parked.state = State.QUEUED
        self._refused = any(parked.state is State.PARKED for parked in self._waiting)
        self._start()

    def _start(self) -> None:
        for ticket in [each for each in self._waiting if each.state is State.QUEUED]:
            if not self._slots:
                return
            self._slots -= 1
            self._waiting.remove(ticket)
            ticket.state = State.RUNNING
            self._nursery.start_soon(self._run, ticket)

    async def _run(self, ticket: Ticket) -> None:
        error: DeliveryError | None = None
        try:
            ticket.settlement = await self._exchange(ticket.messages)
        except BatchRefused as refused:
            error = refused
            self._refused = True
            for later in self._waiting:
                later.state = State.PARKED
        except DeliveryError as failed:
            error = failed
            self._failed = True
            while self._waiting:
                self._waiting.popleft().end(SinkWaits("an earlier request failed"))
        self._slots += 1
        ticket.end(error)
        self._start()


@asynccontextmanager
async def open_exchanges(
    exchange: Exchange,
    *,
    in_flight: int = 1,
    beside: Callable[[], Awaitable[None]] | None = None,
) -> AsyncIterator[ExchangeSession]:
    """A session of which `in_flight` exchanges run at a time, and the task `beside` them.

    Leaving the context cancels all of them: what had no answer by then counts as unsent.
    """
    async with trio.open_nursery() as nursery:
        if beside is not None:
            nursery.start_soon(beside)
        try:
            yield ExchangeSession(nursery, exchange, in_flight)
        finally:
            # Not left to the nursery: see `net.tasks.beside`.
            nursery.cancel_scope.cancel()
