"""Runs the buffer's blocking work in threads: reads in trio's, writes in one of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeVar, TypeVarTuple, cast

import trio

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


async def in_thread(work: Callable[[*_Ts], _T], *args: *_Ts) -> _T:
    """Run `work` in a thread. A cancelled caller waits for its end: it uses a shared connection."""
    return await trio.to_thread.run_sync(work, *args)


class WriterThread(trio.abc.Instrument):
    """One thread that runs one piece of work after the other, for one task at a time.

    A lone event pays for a hop to it. `trio.to_thread` takes three rounds of the scheduler and some
    30 system calls for one (a limiter, a thread looked up and named for each call). Here the thread
    makes a descriptor readable that the task itself waits for, which is one round back. It gets the
    work when every task has had its turn and the loop is about to wait: beside a loop that runs,
    each takes the interpreter's lock from the other, many times for one commit.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._next: _Job | None = None
        self._thread: threading.Thread | None = None
        self._ended = -1

    async def run(self, work: Callable[[*_Ts], _T], *args: *_Ts) -> _T:
        """Run `work` there, to its end; a cancelled caller notices that at its next checkpoint.

        The caller holds the lock of writers.
        """
        if self._thread is None:
            self._ended = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._thread = threading.Thread(target=self._serve, name="buffer writer", daemon=True)
            self._thread.start()
            trio.lowlevel.add_instrument(self)
        job = self._next = _Job(lambda: work(*args))
        try:
            await trio.lowlevel.wait_readable(self._ended)
        except trio.Cancelled:
            # The work goes on, and its result counts. No `Cancelled` is lost: the scope stays
            # cancelled, which the caller notices at its next checkpoint.
            with trio.CancelScope(shield=True):
                await trio.lowlevel.wait_readable(self._ended)
        os.eventfd_read(self._ended)
        try:
            return cast("_T", job.result())
        finally:
            # The error's traceback holds this frame, and the frame would hold the error.
            del job

    def before_io_wait(self, timeout: float) -> None:
        """Hand the work over: trio calls this when no task is left to run in this round."""
        if self._next is not None:
            self._jobs.put(self._next)
            self._next = None

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
            # The last batch is not kept alive until the next one comes.
            del job
            os.eventfd_write(self._ended, 1)

    def close(self) -> None:
        """End the thread, once it has done what it was given."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            os.close(self._ended)
            self._thread = None
            with suppress(RuntimeError, KeyError):  # the loop has ended, and its instruments
                trio.lowlevel.remove_instrument(self)


class _Job:
    """One piece of work."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work: Callable[[], object] | None = work
        self._value: object = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Do the work, in the thread."""
        assert self._work is not None
        try:
            self._value = self._work()
        except BaseException as error:  # noqa: BLE001  (raised in the task)
            self._error = error
        self._work = None

    def result(self) -> object:
        """What the work returned; raises what it raised."""
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None
        return self._value
