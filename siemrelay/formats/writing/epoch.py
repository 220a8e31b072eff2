"""Event times as milliseconds since the epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import add, itemgetter
from typing import Any, Final

from siemrelay.core.memo import BoundedMemo
from siemrelay.core.times import epoch_ms

# `2024-03-01T08:00:00.123Z`
MILLISECOND_CHARACTERS: Final = 24

second_of: Final[Callable[[str], str]] = itemgetter(slice(0, 20))
"""The part of a time in UTC with milliseconds that is before these."""

millisecond_of: Final[Callable[[str], str]] = itemgetter(slice(20, 23))


def with_milliseconds(times: Sequence[Any]) -> bool:
    """Whether all are in UTC, ended by `Z`, with exactly three digits behind the second."""
    if not all(times):
        return False
    # A time has a `Z` at its end or none. As many as there are times, this far apart, leave no
    # room for a time of another length.
    joined = "".join(times)
    return joined[MILLISECOND_CHARACTERS - 1 :: MILLISECOND_CHARACTERS] == "Z" * len(times)


class EpochMs:
    """RFC 3339 → epoch milliseconds in digits; events of one second share the work.

    May be called from several threads.
    """

    def __init__(self) -> None:
        # Empty for what is not after the epoch: there the fraction counts the other way.
        self._seconds = BoundedMemo(_epoch_s)

    def __call__(self, time: str) -> str:
        """The milliseconds of one time."""
        if len(time) == MILLISECOND_CHARACTERS and time[-1] == "Z":
            second = self._seconds[time[:20]]
            if second:
                return second + time[20:23]
        return str(epoch_ms(time))

    def halves(self, times: Sequence[Any]) -> tuple[list[str], list[str]] | None:
        """The seconds of every time, and the three digits behind them.

        None unless all are `with_milliseconds` and a second or more after the epoch.
        """
        if not with_milliseconds(times):
            return None
        seconds = list(map(self._seconds.__getitem__, map(second_of, times)))
        return (seconds, list(map(millisecond_of, times))) if all(seconds) else None

    def column(self, times: Sequence[Any]) -> list[str]:
        """The milliseconds of every time."""
        # One time needs no look at how it is like others.
        halves = self.halves(times) if len(times) > 1 else None
        return list(map(add, *halves)) if halves else [self(time or "") for time in times]


def _epoch_s(second: str) -> str:
    epoch_s = epoch_ms(f"{second}000Z") // 1000
    return str(epoch_s) if epoch_s > 0 else ""
