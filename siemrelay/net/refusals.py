"""What a listener turned away: counted each time, told now and then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import trio

# One line in the log per reason and so many seconds; the rest is counted in the next one.
_TELL_EVERY_S: Final = 10.0


class Refusals:
    """The memory of one listener, so that a flood of strangers is no flood of log lines.

    `count` takes a reason and a number.
    """

    def __init__(
        self, log: Any, listen: str, count: Callable[[str, int], None] | None = None
    ) -> None:
        self._log, self._listen, self._count = log, listen, count
        self._told: dict[str, tuple[float, int]] = {}

    def refuse(
        self, reason: str, peer: str, why: str, *, records: int = 1,
        event: str = "connection closed",
    ) -> None:  # fmt: skip
        """Count `records` by `reason`, one of a few fixed words, and say what was done and why.

        Not said again within some seconds.
        """
        if records and self._count is not None:
            self._count(reason, records)
        self.tell(reason, event, peer=peer, reason=why)

    def tell(self, kind: str, event: str, **facts: object) -> None:
        """Warn, unless there was a warning of this kind just now; `more` were kept back."""
        now = trio.current_time()
        told_at, more = self._told.get(kind, (-_TELL_EVERY_S, 0))
        if now - told_at < _TELL_EVERY_S:
            self._told[kind] = told_at, more + 1
            return
        self._told[kind] = now, 0
        self._log.warning(event, listen=self._listen, more=more, **facts)
