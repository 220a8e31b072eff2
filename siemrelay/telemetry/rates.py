"""Rates computed from samples of counters."""

from __future__ import annotations

from array import array
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


HISTORY_EVERY_S: Final = 20.0
_HISTORY_POINTS: Final = 180
"""An hour."""


class History:
    """The last hour of counters and gauges by name: 1.4 KiB for each name."""

    def __init__(self, *, gauges: bool = False) -> None:
        """Of counters the points are increases per second, of gauges the values themselves."""
        self._gauges = gauges
        self._series: dict[str, array[float]] = {}
        self._last: Mapping[str, int] = {}
        self._at: float | None = None

    def sample(self, now: float, values: Mapping[str, int]) -> None:
        """Take the values at `now`, in seconds of a monotonic clock; a point every 20 s.

        What is no longer among the values is forgotten.
        """
        if self._at is not None and now - self._at < HISTORY_EVERY_S:
            return
        took_s = 0.0 if self._at is None else now - self._at
        self._series = {name: self._series.get(name, array("d")) for name in values}
        for name, value in values.items() if took_s else ():
            before = value if self._gauges else self._last.get(name, value)
            point = float(value) if self._gauges else max(value - before, 0) / took_s
            series = self._series[name]
            series.append(round(point, 1))
            del series[:-_HISTORY_POINTS]
        self._last, self._at = values, now

    def series(self) -> dict[str, list[float]]:
        """Every name's points, oldest first: at most an hour of them."""
        return {name: list(series) for name, series in self._series.items()}
