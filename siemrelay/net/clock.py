"""The clock of the relay's loop, with alarms: a task wakes at a moment at little cost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial

import trio


class AlarmClock(trio.abc.Clock, trio.abc.Instrument):
    """Give it to `trio.run` as its clock, and as an instrument.

    `trio.sleep_until` makes a cancel scope, cancels it and raises and catches an exception: of all
    that a small batch costs between file and sink, a twelfth. An alarm is a look at the time when
    the loop has waited.
    """

    # A function in C: trio asks twenty times for each small batch.
    current_time = staticmethod(time.perf_counter)

    def __init__(self) -> None:
        self._alarms: dict[trio.lowlevel.Task, float] = {}
        self._next = math.inf

    def start_clock(self) -> None:
        """See trio."""

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """See trio: the loop waits for the first alarm, too."""
        return min(deadline, self._next) - self.current_time()

    def after_io_wait(self, timeout: float) -> None:
        """See trio: wake those whose moment has come."""
        now = self.current_time()
        if now >= self._next:
            for task in [task for task, moment in self._alarms.items() if now >= moment]:
                trio.lowlevel.reschedule(task)
                self._forget(task)

    async def sleep_until(self, moment: float) -> None:
        """As `trio.sleep_until`."""
        task = trio.lowlevel.current_task()
        self._alarms[task] = moment
        self._next = min(self._next, moment)

        def leave(_: object) -> trio.lowlevel.Abort:
            self._forget(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)

    def move(self, task: trio.lowlevel.Task, moment: float) -> None:
        """Have the task wake at that moment, if it sleeps by an alarm and is not woken yet."""
        before = self._alarms.get(task)
        if before is None:
            return
        self._alarms[task] = moment
        if moment <= self._next:
            self._next = moment
        elif before <= self._next:
            self._next = min(self._alarms.values())

    def _forget(self, task: trio.lowlevel.Task) -> None:
        del self._alarms[task]
        self._next = min(self._alarms.values(), default=math.inf)


async def sleep_until(moment: float) -> None:
    """As `trio.sleep_until`, by an alarm where the loop has an `AlarmClock`."""
    clock = trio.lowlevel.current_clock()
    if isinstance(clock, AlarmClock):
        await clock.sleep_until(moment)
    else:
        await trio.sleep_until(moment)


class Alarm:
    """A moment that one task waits for and others set, also while it waits."""

    def __init__(self) -> None:
        self._moment = math.inf
        self._move: Callable[[float], None] | None = None

    def set(self, moment: float) -> None:
        """Make it that moment of the loop's clock; `inf` is never."""
        self._moment = moment
        if self._move is not None:
            self._move(moment)

    async def wait(self) -> None:
        """Wait until the moment has come; yields only if it has not. Cancelling changes nothing."""
        clock = trio.lowlevel.current_clock()
        # It may be moved between the time that the task is woken and its turn.
        while clock.current_time() < self._moment:
            try:
                if isinstance(clock, AlarmClock):
                    self._move = partial(clock.move, trio.lowlevel.current_task())
                    await clock.sleep_until(self._moment)
                else:
                    with trio.CancelScope(deadline=self._moment) as scope:
                        self._move = partial(setattr, scope, "deadline")
                        await trio.sleep_forever()
            finally:
                self._move = None
