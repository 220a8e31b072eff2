"""The writer thread: when it gets its work, and what cancelling leaves."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from siemrelay.buffer.threads import WriterThread


@pytest.fixture
def writer() -> Iterator[WriterThread]:
    thread = WriterThread()
    yield thread
    thread.close()


async def test_work_begins_once_every_task_has_had_its_turn(writer: WriterThread) -> None:
    """Beside a running loop each would take the interpreter's lock from the other."""
    order: list[str] = []
    others = [trio.Event() for _ in range(3)]

    async def write() -> None:
        await others[0].wait()
        await writer.run(order.append, "written")

    async def take_a_turn(woken: trio.Event) -> None:
        await woken.wait()
        # Time enough for a thread that has its work already.
        threading.Event().wait(0.05)
        order.append("turn")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        for other in others:
            nursery.start_soon(take_a_turn, other)
        await wait_all_tasks_blocked()
        for other in others:
            other.set()
    assert order == ["turn"] * 3 + ["written"]


async def test_cancelled_work_is_done_to_its_end_and_its_result_counts(
    writer: WriterThread,
) -> None:
    began, may_end = threading.Event(), threading.Event()

    def work() -> str:
        began.set()
        may_end.wait()
        return "done"

    results: list[str] = []

    async def write(scope: trio.CancelScope) -> None:
        with scope:
            results.append(await writer.run(work))

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, scope)
        await trio.to_thread.run_sync(began.wait)
        scope.cancel()
        await wait_all_tasks_blocked()
        assert not results
        may_end.set()
    assert results == ["done"]


async def test_an_error_of_the_work_is_raised_in_the_task_and_the_next_work_goes_on(
    writer: WriterThread,
) -> None:
    with pytest.raises(ZeroDivisionError):
        await writer.run(divmod, 1, 0)
    assert await writer.run(divmod, 7, 2) == (3, 1)


class CountedCalls(WriterThread):
    """Counts how often the loop calls it."""

    calls = 0

    def before_io_wait(self, timeout: float) -> None:
        self.calls += 1
        super().before_io_wait(timeout)


async def test_the_loop_calls_no_writer_that_is_closed() -> None:
    writer = CountedCalls()
    assert await writer.run(lambda: 7) == 7
    assert writer.calls
    writer.close()
    at_close = writer.calls
    await wait_all_tasks_blocked()
    assert writer.calls == at_close
