"""Requests in flight: nothing overtakes a batch that failed, whatever waits behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from siemrelay.core.errors import BatchRefused, DeliveryError, SinkWaits
from siemrelay.pipeline.rejection import isolate
from siemrelay.sinks.contract import Settlement
from siemrelay.sinks.http.exchanges import ExchangeSession, State, open_exchanges


class Receiver:
    """Keeps each request open until the test answers it."""

    def __init__(self) -> None:
        self.started: list[bytes] = []
        self._answers: dict[bytes, trio.Event] = {}
        self._verdicts: dict[bytes, DeliveryError | None] = {}
        self.automatic: Callable[[bytes], DeliveryError | None] | None = None

    async def exchange(self, messages: Sequence[bytes]) -> Settlement:
        name = b"".join(messages)
        self.started.append(name)
        if self.automatic is not None:
            await trio.lowlevel.checkpoint()
            error = self.automatic(name)
        else:
            answered = self._answers[name] = trio.Event()
            await answered.wait()
            error = self._verdicts[name]
        if error is not None:
            raise error
        return ()

    async def answer(self, name: bytes, error: DeliveryError | None = None) -> None:
        await trio.testing.wait_all_tasks_blocked()
        self._verdicts[name] = error
        self._answers[name].set()
        await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def rig(in_flight: int = 1) -> AsyncIterator[tuple[ExchangeSession, Receiver]]:
    receiver = Receiver()
    async with open_exchanges(receiver.exchange, in_flight=in_flight) as session:
        yield session, receiver


def refused() -> BatchRefused:
    return BatchRefused(code="400", reason="no")


@pytest.mark.parametrize("in_flight", [1, 3])
async def test_so_many_requests_run_at_a_time_started_in_order(in_flight: int) -> None:
    async with rig(in_flight) as (session, receiver):
        tickets = [await session.send([b"%d" % n]) for n in range(5)]
        await trio.testing.wait_all_tasks_blocked()
        assert receiver.started == [b"%d" % n for n in range(in_flight)]
        for n, ticket in enumerate(tickets):
            await receiver.answer(b"%d" % n)
            assert await session.confirm(ticket) == ()
        assert receiver.started == [b"%d" % n for n in range(5)]


async def test_after_a_failure_nothing_more_is_sent() -> None:
    async with rig() as (session, receiver):
        first, second = await session.send([b"1"]), await session.send([b"2"])
        await receiver.answer(b"1", SinkWaits("down"))
        third = await session.send([b"3"])
        for ticket, why in ((first, "down"), (second, "an earlier"), (third, "an earlier")):
            assert ticket.state is State.ENDED
            with pytest.raises(SinkWaits, match=why):
                await session.confirm(ticket)
        assert receiver.started == [b"1"]


async def test_parts_of_a_refused_batch_are_sent_before_all_that_was_sent_behind_it() -> None:
    """Also before what is sent while the refused batch is taken apart."""
    async with rig() as (session, receiver):
        first, second = await session.send([b"a", b"b"]), await session.send([b"2"])
        await receiver.answer(b"ab", refused())
        third = await session.send([b"3"])
        with pytest.raises(BatchRefused) as caught:
            await session.confirm(first)
        receiver.automatic = lambda name: refused() if b"a" in name else None
        found, taken = await isolate(session, [b"a", b"b"], caught.value, proven=True)
        assert ([refusal.index for refusal in found], taken) == ([0], 1)
        await session.confirm(second)
        fourth = await session.send([b"4"])
        await session.confirm(third)
        await session.confirm(fourth)
        assert receiver.started == [b"ab", b"a", b"b", b"2", b"3", b"4"]


async def test_a_refusal_behind_which_nothing_waits_parks_what_is_sent_later() -> None:
    async with rig(in_flight=2) as (session, receiver):
        first = await session.send([b"a", b"b"])
        await receiver.answer(b"ab", refused())
        second = await session.send([b"2"])
        with pytest.raises(BatchRefused) as caught:
            await session.confirm(first)
        receiver.automatic = lambda name: refused() if b"a" in name else None
        await isolate(session, [b"a", b"b"], caught.value, proven=True)
        assert await session.confirm(second) == ()
        assert receiver.started == [b"ab", b"a", b"b", b"2"]
