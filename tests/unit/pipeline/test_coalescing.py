"""The first record goes at once; those that follow go together, and none waits too long."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from siemrelay.pipeline.coalescing import Coalescer, RequestPace


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


def requests(pace: RequestPace, arrivals: list[float]) -> list[tuple[float, int]]:
    """When a sink sends its requests, none of which is full, and how many events are in each."""
    found = list[tuple[float, int]]()
    waiting: list[float] = []
    for arrival in [*arrivals, math.inf]:
        if waiting and (due_at := max(waiting[0], pace.due_at)) < arrival:
            pace.note_sent(due_at)
            found.append((round(due_at, 6), len(waiting)))
            waiting = []
        waiting.append(arrival)
    return found


@pytest.mark.parametrize(
    ("max_wait_s", "arrivals", "sent"),
    [
        (0.2, [n / 100 for n in range(10)], [(n / 100, 1) for n in range(10)]),
        (0.2, [0.0, *[60 + n / 4 for n in range(400)]],
         [(0.0, 1), *[(60 + n / 4, 1) for n in range(400)]]),
        (0.5, [n / 100 for n in range(6)], [(0.0, 1), (0.01, 1), (0.02, 1), (0.03, 1), (0.5, 2)]),
        (5.0, [0.0, 1.0, 2.0, 30.0], [(0.0, 1), (5.0, 2), (30.0, 1)]),
    ],
    ids=["a burst of ten", "four a second", "more than the burst", "seldom requests"],
)  # fmt: skip
def test_the_first_requests_after_a_pause_go_at_once_and_a_trickle_is_gathered(
    max_wait_s: float, arrivals: list[float], sent: list[tuple[float, int]]
) -> None:
    assert requests(RequestPace(max_wait_s), arrivals) == sent


@pytest.mark.parametrize("per_s", [7, 10, 100, 1000])
def test_a_steady_flow_has_one_request_for_each_wait(per_s: int) -> None:
    sent = requests(RequestPace(0.2), [n / per_s for n in range(60 * per_s)])
    later = [count for at, count in sent if at >= 30]
    assert len(later) <= 30 / 0.2 + 1
    assert sum(count for _, count in sent) == 60 * per_s
    assert max(later) <= per_s * 0.2 + 2


def test_after_a_rush_the_next_request_waits_no_longer_than_it_may() -> None:
    pace = RequestPace(0.2)
    for n in range(10_000):
        pace.note_sent(n / 1000)
    assert pace.due_at == pytest.approx(9.999 + 0.2)
