"""Alarms wake as deadlines do, unless they are cancelled."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from siemrelay.net.clock import AlarmClock, sleep_until


def run(main: Callable[[], Awaitable[None]]) -> None:
    clock = AlarmClock()
    trio.run(main, clock=clock, instruments=[clock])


def test_alarms_and_deadlines_wake_beside_each_other_and_none_before_its_moment() -> None:
    woke: set[int] = set()

    async def main() -> None:
        began = trio.current_time()

        async def sleep(number: int) -> None:
            moment = began + 0.002 * number
            await (sleep_until(moment) if number % 2 else trio.sleep_until(moment))
            assert trio.current_time() >= moment
            woke.add(number)

        async with trio.open_nursery() as nursery:
            for number in (3, 5, 1, 2, 4, -1):
                nursery.start_soon(sleep, number)

    run(main)
    assert woke == {-1, 1, 2, 3, 4, 5}


def test_a_cancelled_alarm_leaves_nothing_behind_and_the_next_one_wakes() -> None:
    async def main() -> None:
        with trio.move_on_after(0) as scope:
            await sleep_until(math.inf)
        assert scope.cancelled_caught
        with trio.fail_after(10):
            await sleep_until(trio.current_time() + 0.001)

    run(main)


async def test_with_another_clock_it_sleeps_by_that(
    autojump_clock: trio.testing.MockClock,
) -> None:
    began = trio.current_time()
    await sleep_until(began + 100)
    assert trio.current_time() == pytest.approx(began + 100)
