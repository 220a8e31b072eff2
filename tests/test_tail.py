"""What is in memory for the sinks near the end, and how intake gives way to them."""

from __future__ import annotations

import trio
import trio.testing

from siemrelay.buffer.places import Extent, Places
from siemrelay.buffer.tail import Tail
from siemrelay.event import Batch

MIB = 1 << 20


def tail_of(batches: int) -> Tail:
    """A tail of so many batches of 1 MiB with ten records each; it keeps four."""
    tail = Tail()
    for number in range(batches):
        tail.add(Batch(1 + number * 10, 10, "s", 0.0, bytes(MIB)))
    return tail


def places(tail_end: int, **cursors: int) -> Places:
    made = Places(cursors, Extent(1, tail_end))
    made.choose(dict.fromkeys(cursors, (False, False)))
    return made


async def test_what_fits_beside_the_tail_waits_for_nobody() -> None:
    where = places(31, only=1)
    with trio.fail_after(1):
        await tail_of(3).give_way(where, MIB)


async def test_a_commit_that_a_sender_may_wait_for_gives_way_to_nobody() -> None:
    where = places(41, only=1)
    with trio.fail_after(0.1):
        await tail_of(4).give_way(where, MIB - 1)


async def test_a_slower_sink_is_not_waited_for_while_another_one_keeps_up() -> None:
    where = places(41, foremost=41, slow=1)
    with trio.fail_after(0.1):
        await tail_of(4).give_way(where, 2 * MIB)


async def test_intake_gives_way_until_the_foremost_sink_has_taken_what_would_be_pushed_out(
    autojump_clock: trio.testing.MockClock,
) -> None:
    tail, where, gone = tail_of(4), places(41, foremost=5, slow=1), list[float]()

    async def giving_way() -> None:
        await tail.give_way(where, 2 * MIB)
        gone.append(trio.current_time())

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(giving_way)
        await trio.sleep(0.01)
        where.advance("foremost", 20)  # the second batch still holds a record for it
        await trio.sleep(0.01)
        assert gone == []
        where.advance("foremost", 21)
    assert began + 0.02 <= gone[0] < began + 0.03


async def test_a_sink_that_stands_still_holds_up_intake_once_for_a_moment(
    autojump_clock: trio.testing.MockClock,
) -> None:
    tail, where, end = tail_of(4), places(1000, stuck=1), 41
    began = trio.current_time()
    for _ in range(50):
        await tail.give_way(where, MIB)
        tail.add(Batch(end, 10, "s", 0.0, bytes(MIB)))
        end += 10
    assert 0.2 < trio.current_time() - began < 0.3
