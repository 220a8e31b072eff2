"""The first record goes at once; those that follow go together, and none waits too long."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from siemrelay.pipeline.coalescing import Coalescer


@pytest.mark.parametrize(
    ("window_s", "arrivals", "departures"),
    [
        (0.005, [0.0], [0.0]),
        (0.005, [0.0, 0.001, 0.004, 0.006, 1.0], [0.0, 0.005, 0.005, 0.01, 1.0]),
        (0.02, [0.0, 0.02, 0.021, 0.059], [0.0, 0.02, 0.04, 0.06]),
        (0.0, [0.0, 0.001, 0.001, 0.002], [0.0, 0.001, 0.001, 0.002]),
    ],
)
async def test_what_comes_after_a_pause_goes_at_once_and_what_follows_goes_together(
    autojump_clock: trio.testing.MockClock,
    window_s: float, arrivals: list[float], departures: list[float],
) -> None:  # fmt: skip
    coalescer, went = Coalescer(window_s), list[float]()
    began = trio.current_time()

    async def one(after_s: float) -> None:
        await trio.sleep_until(began + after_s)
        waited = await coalescer.turn()
        went.append(round(trio.current_time() - began, 6))
        assert waited == (went[-1] > after_s)

    async with trio.open_nursery() as nursery:
        for after_s in arrivals:
            nursery.start_soon(one, after_s)
    assert sorted(went) == departures


async def test_however_many_records_come_the_moments_per_second_are_bounded(
    autojump_clock: trio.testing.MockClock,
) -> None:
    coalescer, moments = Coalescer(0.02), set[float]()
    began = trio.current_time()

    async def source(number: int) -> None:
        while trio.current_time() < began + 1:
            await trio.sleep((number + 1) / 3000)
            await coalescer.turn()
            moments.add(trio.current_time())

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(source, number)
    assert len(moments) <= 1 / 0.02 + 2


async def test_one_that_may_not_wait_so_long_takes_the_others_along(
    autojump_clock: trio.testing.MockClock,
) -> None:
    coalescer, went = Coalescer(0.02), dict[float, float]()
    await coalescer.turn()
    began = trio.current_time()

    async def one(at_most_s: float) -> None:
        await coalescer.turn(at_most_s)
        went[at_most_s] = round(trio.current_time() - began, 6)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, 0.01)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(one, math.inf)
        nursery.start_soon(one, 0.005)
    assert went == {0.005: 0.005, math.inf: 0.005, 0.01: 0.01}


async def test_the_cancellation_of_one_that_waits_leaves_nobody_waiting(
    autojump_clock: trio.testing.MockClock,
) -> None:
    coalescer = Coalescer(0.02)
    await coalescer.turn()
    with trio.fail_after(1):
        async with trio.open_nursery() as staying, trio.open_nursery() as leaving:
            leaving.start_soon(coalescer.turn)
            await trio.testing.wait_all_tasks_blocked()
            staying.start_soon(coalescer.turn)
            await trio.testing.wait_all_tasks_blocked()
            leaving.cancel_scope.cancel()
    await coalescer.turn()
