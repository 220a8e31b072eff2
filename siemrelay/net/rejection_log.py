"""What listeners count: connections, life, and the peers and messages that they reject."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import trio

# One line in the log per reason and this many seconds; the next line counts the rest.
_LOG_EVERY_S: Final = 10.0


class ConnectionObserver(Protocol):
    """Receives what a listener counts. A source's intake is one."""

    def connected(self, change: int) -> None:
        """Add to the number of open connections; below 0 takes off."""

    def progress(self) -> None:
        """Note that the listener is alive."""

    def refused(self, reason: str, records: int = 1) -> None:
        """Count rejected records; `reason` is a label of the metric, one of a fixed few."""


class RejectionLog:
    """Counts rejected peers and messages; logs each reason at most once in 10 seconds.

    So a flood of connections does not flood the log. `count` takes a reason and a number.
    """

    def __init__(
        self, log: Any, listen: str, count: Callable[[str, int], None] | None = None
    ) -> None:
        self.log, self._listen, self._count = log, listen, count
        self._logged: dict[str, tuple[float, int]] = {}

    def reject(
        self, reason: str, peer: str, why: str, *, records: int = 1,
        event: str = "connection closed",
    ) -> None:  # fmt: skip
        """Count `records` under `reason` (see `ConnectionObserver.refused`); log event and why."""
        if records and self._count is not None:
            self._count(reason, records)
        self.warn(reason, event, peer=peer, reason=why)

    def warn(self, kind: str, event: str, **facts: object) -> None:
        """Log a warning unless one of this kind was logged just now; `more`: how many were not.

        Each kind has its own pause.
        """
        now = trio.current_time()
        logged_at, more = self._logged.get(kind, (-_LOG_EVERY_S, 0))
        if now - logged_at < _LOG_EVERY_S:
            self._logged[kind] = logged_at, more + 1
            return
        self._logged[kind] = now, 0
        since = {"more": more} if more else {}
        self.log.warning(event, listen=self._listen, **facts, **since)
