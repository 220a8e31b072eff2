"""Rates computed from samples of counters."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final

RATE_S: Final = 10.0
"""The averaging window, in seconds: long enough to be steady, short enough to be current."""


class Rates:
    """Counters by name, sampled about once a second; keeps samples of `RATE_S` seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Mapping[str, int]]] = deque()

    def sample(self, now: float, counts: Mapping[str, int]) -> None:
        """Record the counters at `now`, in seconds of a monotonic clock."""
        samples = self._samples
        samples.append((now, counts))
        while len(samples) > 2 and samples[1][0] <= now - RATE_S:
            samples.popleft()

    def per_s(self, name: str) -> float:
        """The counter's increase per second; 0 until there are two samples of it."""
        if len(self._samples) < 2:
            return 0.0
        (began, first), (now, last) = self._samples[0], self._samples[-1]
        if name not in first or name not in last or now <= began:
            return 0.0
        return (last[name] - first[name]) / (now - began)
