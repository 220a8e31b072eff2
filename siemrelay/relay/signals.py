"""What the process does on SIGTERM, SIGINT and SIGHUP."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Final

import structlog
import trio

_log = structlog.get_logger()

# SIGHUP is caught, since many send it after rotating logs and by default it would end the process.
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


async def handle_signals(
    stop: Callable[[], None],
    stop_at_once: Callable[[], None],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Call `stop` on the first stop signal and `stop_at_once` on the second, then return."""
    stopping = False
    with trio.open_signal_receiver(*_SIGNALS) as received:
        task_status.started()
        async for number in received:
            if number == signal.SIGHUP:
                _log.warning("SIGHUP changes nothing: restart to take a new configuration")
            elif stopping:
                _log.warning("stopping at once", signal=signal.Signals(number).name)
                stop_at_once()
                return
            else:
                stopping = True
                _log.info("stopping", signal=signal.Signals(number).name)
                stop()
