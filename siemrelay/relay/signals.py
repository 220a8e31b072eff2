"""Handles SIGTERM, SIGINT and SIGHUP: stops, stops at once, reloads."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Final

import structlog
import trio

_log = structlog.get_logger()

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


async def handle_signals(
    stop: Callable[[], None],
    stop_at_once: Callable[[], None],
    reload: Callable[[], None],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Reload on SIGHUP; stop on the first stop signal, at once on the second, then return."""
    stopping = False
    with trio.open_signal_receiver(*_SIGNALS) as received:
        task_status.started()
        async for number in received:
            if number == signal.SIGHUP:
                _log.info("reloading the configuration")
                reload()
            elif stopping:
                _log.warning("stopping at once", signal=signal.Signals(number).name)
                stop_at_once()
                return
            else:
                stopping = True
                _log.info("stopping", signal=signal.Signals(number).name)
                stop()
