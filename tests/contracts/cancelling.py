"""Cancels work at each of its awaits, and looks for what it has left open."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

PATIENCE_S = 30.0
_ASK_AGAIN_S = 0.01


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait for what another thread or process brings about."""
    for _ in range(int(PATIENCE_S / _ASK_AGAIN_S)):
        if condition():
            return
        await trio.sleep(_ASK_AGAIN_S)
    raise AssertionError(f"never: {what}")


class NothingLeft:
    """Made before the work: knows how many descriptors and tasks there are without it."""

    def __init__(self) -> None:
        self._before = _descriptors(), _tasks()

    async def check(self, when: str) -> None:
        """Wait until the work has left nothing: its other side closes what it closed."""
        before = self._before
        await eventually(lambda: _descriptors() <= before[0], f"no descriptor is left, {when}")
        await eventually(lambda: _tasks() <= before[1], f"no task is left, {when}")


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


class _CancelAt(trio.abc.Instrument):
    """Cancels a nursery when its tasks, at any depth, have been scheduled so many times."""

    def __init__(self, step: int, nursery: trio.Nursery) -> None:
        self._left, self._nursery = step, nursery

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        nursery: trio.Nursery | None = task.parent_nursery
        while nursery is not None and nursery is not self._nursery:
            nursery = nursery.parent_task.parent_nursery
        if nursery is None:
            return
        self._left -= 1
        if self._left == 0:
            nursery.cancel_scope.cancel()


async def cancelled_at(step: int, work: Callable[[], Awaitable[None]]) -> bool:
    """Run it and cancel it when it, with its tasks, runs for that time; whether it ended before."""
    over = False

    async def run() -> None:
        nonlocal over
        await work()
        over = True

    async with trio.open_nursery() as nursery:
        instrument = _CancelAt(step, nursery)
        nursery.start_soon(run)
        trio.lowlevel.add_instrument(instrument)
    trio.lowlevel.remove_instrument(instrument)
    return over
