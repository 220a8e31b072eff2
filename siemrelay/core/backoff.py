"""The delay before the next attempt after failures: doubling, bounded, with jitter, for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

# A held sink is tried this seldom: the fix may be on the receiver's side (a token enabled again).
HOLD_PROBE_S: Final = 60.0
HOLD_ADVICE: Final = (
    f"tried again every {HOLD_PROBE_S:.0f} s, and at once by `siemrelay reload`; a changed token "
    "or certificate file is taken by itself"
)

# Doubling stops here: beyond it no `max` is larger, and a float has its limits too.
_DOUBLINGS: Final = 32


def delay_s(failures: int, initial_s: float, max_s: float, *, random: Callable[[], float]) -> float:
    """Seconds to wait after so many failures in a row (1 or more).

    `random` gives 0 to 1: the delay is between half and the whole of the doubled value, so that
    relays which lost the same peer together do not all come back together.
    """
    ceiling: float = min(initial_s * 2 ** min(failures - 1, _DOUBLINGS), max_s)
    return ceiling * (0.5 + random() / 2)
