"""Event times as milliseconds since the epoch."""

from __future__ import annotations

from typing import Final

from siemrelay.times import epoch_ms

# `2024-03-01T08:00:00.123Z`
MILLISECOND_CHARACTERS: Final = 24


class EpochMs:
    """RFC 3339 → epoch milliseconds in digits; events of one second share the work.

    May be called from several threads.
    """

    def __init__(self) -> None:
        self._last = ("", "")

    def __call__(self, time: str) -> str:
        if len(time) != MILLISECOND_CHARACTERS or time[-1] != "Z":
            return str(epoch_ms(time))
        # One assignment for both, so that threads cannot see half of it.
        second, epoch = self._last
        if not time.startswith(second) or not second:
            second = time[:20]
            epoch_s = epoch_ms(f"{second}000Z") // 1000
            if epoch_s <= 0:
                return str(epoch_ms(time))
            epoch = str(epoch_s)
            self._last = second, epoch
        return epoch + time[20:23]
