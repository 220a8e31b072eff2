"""How tasks work together: a broadcast, a lock, a task beside a session, and signs of life."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

from siemrelay.core.errors import most_lasting_error
from siemrelay.net.clock import sleep_until

# The health check allows for minutes; a timer that ticks costs nothing.
_ALIVE_S: Final = 30.0

# With `drain`, this much silence with nobody served counts as the end.
_QUIET_S: Final = 1.0


async def report_alive(progress: Callable[[], None]) -> None:
    """Call `progress` at once and every 30 seconds, until cancelled."""
    while True:
        progress()
        await trio.sleep(_ALIVE_S)


async def next_second(seconds: int = 1) -> None:
    """Wait for the next full second of trio's clock, or for one so many seconds ahead.

    Parts that look at something every few seconds do it in the same round, which wakes an idle
    process once instead of once for each of them.
    """
    await sleep_until(second_after(trio.current_time(), seconds))


def second_after(now: float, seconds: int = 1) -> float:
    """The deadline of `next_second`, for tasks that also wait for something else."""
    return float(math.floor(now) + seconds)


class Activity:
    """The activity of a server: `arrived_at` (the last arrival) and `open` (peers being served)."""

    def __init__(self) -> None:
        self.arrived_at, self.open = trio.current_time(), 0

    async def until_quiet(self) -> None:
        """Wait until nobody is served and nothing has arrived for a second."""
        while True:
            left_s = self.arrived_at + _QUIET_S - trio.current_time()
            if left_s <= 0 and not self.open:
                return
            await trio.sleep(max(left_s, _QUIET_S / 10))


# In the order in which they came. `trio.lowlevel.ParkingLot` costs five times as much, most of it
# when nobody waits, and a small batch wakes five of these on its way.
_Waiting = dict[trio.lowlevel.Task, None]


async def _wait_in(waiting: _Waiting) -> None:
    """Wait until another task takes this one out and reschedules it."""
    task = trio.lowlevel.current_task()
    waiting[task] = None

    def leave(_: object) -> trio.lowlevel.Abort:
        del waiting[task]
        return trio.lowlevel.Abort.SUCCEEDED

    await trio.lowlevel.wait_task_rescheduled(leave)


class Broadcast:
    """Wakes every task that waits now; one that begins to wait later waits for the next time.

    Look at the state and wait without an `await` in between, or a change is missed.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: _Waiting = {}

    def wake_all(self) -> None:
        """Wake them, in the order in which they came. Costs next to nothing while nobody waits."""
        if self._waiting:
            woken = list(self._waiting)
            self._waiting.clear()
            for task in woken:
                trio.lowlevel.reschedule(task)

    async def wait(self) -> None:
        """Wait for the next `wake_all`. Nothing is left behind when cancelled."""
        await _wait_in(self._waiting)


class Mutex:
    """A lock, for `async with`: first come, first served.

    Taking it costs nothing while nobody else holds it: `trio.Lock` always yields to the other tasks
    first, which is a round of the scheduler each time. So a loop around it must yield elsewhere.
    """

    __slots__ = ("_held", "_waiting")

    def __init__(self) -> None:
        self._waiting: _Waiting = {}
        self._held = False

    async def __aenter__(self) -> None:
        if self._held:
            await _wait_in(self._waiting)  # it is handed over and stays held
        self._held = True

    async def __aexit__(self, *exc: object) -> None:
        self.release()

    def take(self) -> bool:
        """Take it if nobody holds it; whether it was taken. `release` must follow."""
        if self._held:
            return False
        self._held = True
        return True

    def release(self) -> None:
        """Hand it to the first task that waits; call it after `take`."""
        if self._waiting:
            first = next(iter(self._waiting))
            del self._waiting[first]
            trio.lowlevel.reschedule(first)
        else:
            self._held = False


@asynccontextmanager
async def beside(task: Callable[[], Awaitable[None]]) -> AsyncIterator[trio.Nursery]:
    """Run `task`, and what is started in the nursery, until the context ends.

    The tasks and the body may notice the same broken connection: of several DeliveryErrors the most
    lasting one is raised (`most_lasting_error`). Other errors come through as trio groups them.
    """
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task)
            try:
                yield nursery
            finally:
                # When the body fails the nursery would cancel by itself, from the function that
                # then makes the group. The frames of each Cancelled lead back to there, so the
                # group would hold itself.
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # No variable here has the error: it would hold this frame, and the frame the error.
        raise most_lasting_error(group) from group
