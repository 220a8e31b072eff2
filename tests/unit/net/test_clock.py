"""Alarms wake as deadlines do, unless they are cancelled."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from siemrelay.net.clock import Alarm, AlarmClock, sleep_until


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


async def _moved_alarm() -> None:
    began, alarm = trio.current_time(), Alarm()
    alarm.set(began - 1)
    await alarm.wait()  # it has come already
    alarm.set(math.inf)
    rang = list[float]()

    async def ring() -> None:
        await alarm.wait()
        rang.append(trio.current_time() - began)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ring)
            nursery.start_soon(sleep_until, began + 0.005)  # another one is not disturbed
            await trio.testing.wait_all_tasks_blocked()
            for moment in (began + 0.001, math.inf, began + 1000):
                alarm.set(moment)
            await trio.sleep(0.003)
            assert not rang
            alarm.set(began + 0.004)
    assert rang[0] >= 0.004


async def _cancelled_alarm() -> None:
    alarm = Alarm()
    with trio.move_on_after(0) as scope:
        await alarm.wait()
    assert scope.cancelled_caught
    alarm.set(trio.current_time() + 0.001)
    with trio.fail_after(10):
        await alarm.wait()


async def _alarm_moved_before_the_turn_of_the_one_it_woke() -> None:
    alarm, rang = Alarm(), list[float]()

    async def ring() -> None:
        await alarm.wait()
        rang.append(trio.current_time())
        await trio.sleep(0.003)  # is not disturbed by what the alarm is set to

    for number in range(20):  # trio shuffles the turns
        began = trio.current_time()
        alarm.set(began + 0.001)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ring)
            await trio.testing.wait_all_tasks_blocked()
            await sleep_until(began + 0.001)
            alarm.set(began + 0.002)
        assert len(rang) == number + 1


@pytest.mark.parametrize("main", [
    _moved_alarm, _cancelled_alarm, _alarm_moved_before_the_turn_of_the_one_it_woke,
])  # fmt: skip
@pytest.mark.parametrize("start", [run, trio.run])
def test_an_alarm_rings_at_the_moment_it_was_last_set_to(
    main: Callable[[], Awaitable[None]], start: Callable[[Any], None]
) -> None:
    start(main)
