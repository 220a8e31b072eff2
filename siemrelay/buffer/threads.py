"""Runs the buffer's blocking work in threads: reads in trio's, writes in one of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar, TypeVarTuple

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

    Who calls it holds the lock of writers, from `run` or `begin` until the work has ended.
    """

    def __init__(self) -> None:
        # One entry for each piece of work; False ends the thread.
        self._given: SimpleQueue[bool] = SimpleQueue()
        self._is_new = False  # whether there is work that the thread was not given yet
        self._work: Callable[..., object] = bool
        self._args: tuple[Any, ...] = ()
        self._ended = self._run_ended = -1
        self._value: object = None
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, unless it runs."""
        if self._thread is None:
            self._run_ended = event_descriptor()
            self._thread = threading.Thread(target=self._serve, name="buffer writer", daemon=True)
            self._thread.start()
            trio.lowlevel.add_instrument(self)

    def begin(self, work: Callable[..., object], args: tuple[Any, ...], ended: int) -> None:
        """Have `work` done; once it has ended the descriptor `ended` is readable."""
        self._work, self._args, self._ended, self._is_new = work, args, ended, True

    def result(self) -> Any:
        """The result of the finished work; raises what it raised."""
        value, error = self._value, self._error
        # The last batch is not kept alive until the next one comes.
        self._args, self._value, self._error = (), None, None
        if error is not None:
            try:
                raise error
            finally:
                # Its traceback holds this frame, and the frame would hold the error.
                del error
        return value

    async def run(self, work: Callable[[*_Ts], _T], *args: *_Ts) -> _T:
        """Run `work` there, to its end; a cancelled caller notices that at its next checkpoint."""
        self.start()
        self.begin(work, args, self._run_ended)
        try:
            await trio.lowlevel.wait_readable(self._run_ended)
        except trio.Cancelled:
            # The work goes on, and its result counts. No `Cancelled` is lost: the scope stays
            # cancelled, which the caller notices at its next checkpoint.
            with trio.CancelScope(shield=True):
                await trio.lowlevel.wait_readable(self._run_ended)
        os.eventfd_read(self._run_ended)
        result: _T = self.result()
        return result

    def before_io_wait(self, timeout: float) -> None:
        """Hand the work over: trio calls this when no task is left to run in this round."""
        if self._is_new:
            self._is_new = False
            self._given.put(True)

    def _serve(self) -> None:
        while self._given.get():
            try:
                self._value = self._work(*self._args)
            except BaseException as error:  # noqa: BLE001  (raised in the task)
                self._error = error
            os.eventfd_write(self._ended, 1)

    def close(self) -> None:
        """End the thread, once it has done what it was given."""
        if self._thread is not None:
            self._given.put(False)
            self._thread.join()
            os.close(self._run_ended)
            self._thread = None
            with suppress(RuntimeError, KeyError):  # the loop has ended, and its instruments
                trio.lowlevel.remove_instrument(self)


def event_descriptor() -> int:
    """A descriptor that another thread makes readable by `os.eventfd_write`."""
    return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
