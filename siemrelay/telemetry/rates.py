"""How fast things are counted, from samples of the counters."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final

RATE_S: Final = 10.0
"""Rates are those of about so many seconds: long enough to be calm, short enough to be now."""


class Rates:
    """Counters by name, sampled every second or so. Bounded by `RATE_S`, whatever the pace."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Mapping[str, int]]] = deque()

    def sample(self, now: float, counts: Mapping[str, int]) -> None:
        """Note what the counters say at `now`, in seconds of any clock that only goes forward."""
        samples = self._samples
        samples.append((now, counts))
        while len(samples) > 2 and samples[1][0] <= now - RATE_S:
            samples.popleft()

    def per_s(self, name: str) -> float:
        """How much it rose per second; 0 until there are two samples of it."""
        if len(self._samples) < 2:
            return 0.0
        (began, first), (now, last) = self._samples[0], self._samples[-1]
        if name not in first or name not in last or now <= began:
            return 0.0
        return (last[name] - first[name]) / (now - began)
