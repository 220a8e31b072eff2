"""Runs parts, each in a scope of its own: one that fails is restarted, never the whole relay."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import msgspec
import structlog
import trio

from siemrelay.core.backoff import delay_s
from siemrelay.core.errors import BufferBroken, SiemrelayError, leaves

_log = structlog.get_logger()

_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0

_REMINDER_S: Final = 3600.0

# A part that ran this long has recovered: its next failure starts the back-off anew.
_RECOVERED_S: Final = 60.0


async def supervise(
    name: str, run: Callable[[], Awaitable[None]], failed: Callable[[BaseException], None]
) -> None:
    """Run one part until it returns; on an Exception log it, call `failed`, and run it again.

    A broken buffer is not caught: no part can work without the disk. While a part fails again with
    the same message, the log repeats it once an hour; only the first line has a traceback, and only
    if the error is one of our own.
    """
    failures, logged, logged_at = 0, "", 0.0
    while True:
        started = trio.current_time()
        try:
            await run()
        except BufferBroken:
            raise
        except (Exception, BaseExceptionGroup) as error:
            if _holds_broken_buffer(error):
                raise
            if not isinstance(error, Exception):
                # The part was cancelled, perhaps while it failed: log the failure, go on stopping.
                failed_too, stop = error.split(Exception)
                if failed_too is not None:
                    _log.error("part failed while it was stopped", part=name, exc_info=failed_too)
                raise stop if stop is not None else error from None
            failures = 1 if trio.current_time() - started > _RECOVERED_S else failures + 1
            pause = delay_s(failures, _FIRST_PAUSE_S, _LONGEST_PAUSE_S, random=random.random)
            summary = summarize(error)
            now = trio.current_time()
            if summary != logged or failures == 1 or now - logged_at >= _REMINDER_S:
                _log.error("part failed, restarting it", part=name, retry_in_s=round(pause, 1),
                           error=summary,
                           exc_info=_unexpected(error) if summary != logged else None)  # fmt: skip
                logged, logged_at = summary, now
            failed(error)
            await trio.sleep(pause)
        else:
            return


def summarize(error: BaseException) -> str:
    """The error's message for a person; of an exception group, the messages of its leaves."""
    inner = leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return "; ".join(dict.fromkeys(str(each) or type(each).__name__ for each in inner))


def _unexpected(error: BaseException) -> BaseException | None:
    """The error if its traceback adds to its message: those of the system and ours say it all."""
    inner = leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return None if all(isinstance(each, (SiemrelayError, OSError)) for each in inner) else error


def _holds_broken_buffer(error: BaseException) -> bool:
    return isinstance(error, BaseExceptionGroup) and error.subgroup(BufferBroken) is not None


class _Running(msgspec.Struct, frozen=True):
    scope: trio.CancelScope
    ended: trio.Event


class RunningParts:
    """The running sinks, or the running sources. The nursery owns their tasks."""

    def __init__(self, kind: str, nursery: trio.Nursery) -> None:
        """`kind` is `sink` or `source`: with the part's name it stands in log lines."""
        self._kind, self._nursery = kind, nursery
        self._running: dict[str, _Running] = {}

    def start(
        self, name: str, run: Callable[[], Awaitable[None]], failed: Callable[[BaseException], None]
    ) -> None:
        """Start a part under supervision; a part of that name must not be running.

        Once the nursery is closed nothing is started: the relay has stopped during a reload.
        """
        assert name not in self._running, name
        running = _Running(trio.CancelScope(), trio.Event())
        with suppress(RuntimeError):  # closed
            self._nursery.start_soon(self._run, name, running, run, failed)
            self._running[name] = running

    def __contains__(self, name: str) -> bool:
        return name in self._running

    async def stop(self, name: str) -> None:
        """Cancel a part and wait until it has ended; nothing happens if it is not running."""
        if (running := self._running.get(name)) is not None:
            running.scope.cancel()
            await running.ended.wait()

    async def _run(
        self, name: str, running: _Running, run: Callable[[], Awaitable[None]],
        failed: Callable[[BaseException], None],
    ) -> None:  # fmt: skip
        try:
            with running.scope:
                await supervise(f"{self._kind} {name}", run, failed)
        finally:
            del self._running[name]
            running.ended.set()
