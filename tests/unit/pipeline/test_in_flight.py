"""What is sent and not settled is bounded, in runs and in bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio
import trio.testing

from siemrelay.core.errors import BatchRefused
from siemrelay.pipeline.batching import DeliveryBatch
from siemrelay.pipeline.in_flight import InFlight
from siemrelay.sinks.contract import ConfirmsEarly, Settlement


class Unused:
    """The session: what is in flight over it is looked at here, and nothing sent."""

    async def send(self, messages: Sequence[bytes]) -> Any:
        raise AssertionError

    async def confirm(self, ticket: Any) -> Settlement:
        raise AssertionError


def run_of(size_bytes: int) -> DeliveryBatch:
    return DeliveryBatch(1, [bytes(size_bytes)], [0])


async def test_runs_come_out_in_order_with_what_sending_gave_for_them() -> None:
    flight = InFlight(Unused(), 8)
    runs = [run_of(n) for n in range(3)]
    for ticket, run in enumerate(runs):
        await flight.wait_for_room()
        await flight.put(run, ticket)
    assert [await flight.take() for _ in runs] == [(run, n) for n, run in enumerate(runs)]


@pytest.mark.parametrize(
    ("max_runs", "size_bytes", "sinks", "fit"),
    [(3, 10, 1, 3), (64, 1 << 20, 2, 4), (64, 1 << 20, 4, 2), (64, 1 << 20, 100, 1)],
    ids=["runs", "bytes", "a share of four", "one batch of a hundred sinks each"],
)
async def test_the_sender_waits_for_the_settler_at_the_bound_of_runs_or_bytes(
    max_runs: int, size_bytes: int, sinks: int, fit: int
) -> None:
    flight, sent = InFlight(Unused(), max_runs, lambda total: total // sinks), list[int]()

    async def send() -> None:
        for number in range(fit + 2):
            await flight.wait_for_room()
            await flight.put(run_of(size_bytes), number)
            sent.append(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        assert len(sent) == fit
        await flight.take()
        await trio.testing.wait_all_tasks_blocked()
        assert len(sent) == fit + 1
        await flight.take()
        await trio.testing.wait_all_tasks_blocked()
        assert len(sent) == fit + 2


async def test_nothing_is_in_flight_once_the_settler_asks_for_more() -> None:
    flight = InFlight(Unused(), 3)
    assert flight.idle
    await flight.put(run_of(1), 0)
    assert not flight.idle
    await flight.take()
    assert not flight.idle  # it is being settled
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flight.take)
        await trio.testing.wait_all_tasks_blocked()
        assert flight.idle
        nursery.cancel_scope.cancel()


class Patient(Unused, ConfirmsEarly):
    """A session of which nobody waits for the confirmations within 50 seconds."""

    patience_s = 50.0
    hurried = 0

    def is_confirmed(self, ticket: Any) -> bool:
        return bool(ticket)

    def hurry(self) -> None:
        self.hurried += 1


def test_the_sender_asks_what_is_confirmed_at_most_twice_within_the_patience() -> None:
    flight = InFlight(Patient(), 8)
    asks = [second for second in range(0, 80, 10) if flight.is_time_to_ask(second)]
    assert asks == [0, 30, 60]


async def test_the_settler_sleeps_until_the_patience_of_the_earliest_batch_is_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    flight, began = InFlight(Patient(), 8), trio.current_time()
    await flight.put(run_of(1), 0)
    await trio.sleep(30)
    await flight.put(run_of(1), 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flight.take)
    assert trio.current_time() == pytest.approx(began + 50)


async def test_the_settler_has_no_turn_for_what_the_sender_settles(
    autojump_clock: trio.testing.MockClock,
) -> None:
    flight = InFlight(Patient(), 8)
    with trio.move_on_after(1000) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flight.take)
            for _ in range(5):
                await flight.put(run_of(1), 0)
                await trio.sleep(40)
                assert flight.earliest() is not None
                flight.remove_earliest()
    assert scope.cancelled_caught


@pytest.mark.parametrize("refused", [False, True])
async def test_the_settler_has_its_turn_at_once_when_something_waits_for_it(
    refused: bool, autojump_clock: trio.testing.MockClock
) -> None:
    flight, began = InFlight(Patient(), 2), trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flight.take)
        if refused:
            await flight.put(run_of(1), BatchRefused(code="400", reason="bad"))
        else:
            for _ in range(3):
                await flight.put(run_of(1), 0)
    assert trio.current_time() == pytest.approx(began)


async def test_the_session_hurries_each_time_that_the_sender_waits_for_a_batch_to_be_taken() -> (
    None
):
    session = Patient()
    flight = InFlight(session, 8, lambda total: 1)
    for _ in range(2):
        await flight.put(run_of(100_000), 0)
    assert session.hurried == 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flight.wait_for_room)
        for hurried in (1, 2):
            await trio.testing.wait_all_tasks_blocked()
            assert session.hurried == hurried
            await flight.take()
