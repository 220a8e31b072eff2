"""What is in memory for the sinks near the end, and how intake gives way to them."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from siemrelay.buffer.recent import RecentBatches
from siemrelay.core.event import Batch

MIB = 1 << 20


def tail_of(batches: int) -> RecentBatches:
    """A tail of so many batches of 1 MiB with ten records each; it keeps four."""
    tail = RecentBatches(1, 4 * MIB)
    for number in range(batches):
        tail.add(Batch(1 + number * 10, 10, "s", 0.0, bytes(MIB)))
    return tail


async def waited_s(tail: RecentBatches, size_bytes: int) -> float:
    """For how long a commit of that size gives way, by a clock that goes on only when it waits."""
    began = trio.current_time()
    await tail.throttle(size_bytes)
    return trio.current_time() - began


async def test_what_fits_beside_the_tail_waits_for_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    assert await waited_s(tail_of(3), MIB) == 0


async def test_a_commit_that_a_sender_may_wait_for_gives_way_to_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    assert await waited_s(tail_of(4), MIB - 1) == 0


async def test_a_slower_sink_is_not_waited_for_while_another_one_keeps_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    tail = tail_of(4)
    assert tail.take(1)  # the slower one
    assert tail.take(40)
    assert await waited_s(tail, 2 * MIB) == 0


async def test_intake_gives_way_until_the_foremost_sink_has_taken_what_would_be_pushed_out(
    autojump_clock: trio.testing.MockClock,
) -> None:
    tail, gone = tail_of(4), list[float]()

    async def giving_way() -> None:
        await tail.throttle(2 * MIB)
        gone.append(trio.current_time())

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(giving_way)
        await trio.sleep(0.005)
        assert tail.take(5)  # the second batch would be pushed out too
        await trio.sleep(0.005)
        assert gone == []
        assert tail.take(11)
    assert began + 0.01 <= gone[0] < began + 0.015


async def test_sinks_that_stand_still_hold_up_intake_once_for_a_moment(
    autojump_clock: trio.testing.MockClock,
) -> None:
    tail, end = tail_of(4), 41
    began = trio.current_time()
    for _ in range(50):
        await tail.throttle(MIB)
        tail.add(Batch(end, 10, "s", 0.0, bytes(MIB)))
        end += 10
    assert 0.25 < trio.current_time() - began < 0.35


@pytest.mark.parametrize(("sink_mib_per_s", "most_s"), [(200, 0.3), (100, 0.55), (20, 1.0)])
async def test_a_steady_sink_sets_the_pace_of_intake_only_if_it_is_fast(
    sink_mib_per_s: int, most_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    tail, end = RecentBatches(1, 4 * MIB), 1

    async def sink() -> None:
        position = 1
        while True:
            await trio.sleep(1 / sink_mib_per_s)
            batch = tail.take(position) if position < end else None
            position = batch.next_sequence if batch else position

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink)
        for _ in range(50):
            await tail.throttle(MIB)
            tail.add(Batch(end, 10, "s", 0.0, bytes(MIB)))
            end += 10
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began < most_s
