"""Counts event by event: what the writer wrote, what each receiver got.

Every event has a number from 0 inside its id; the memory is one byte for each number and receiver.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from statistics import median
from typing import Final, NamedTuple

from siemrelay.core.event_types import EventType
from siemrelay.demo.records import KINDS

# A byte counts how often an event came; more often than this is still "often".
_MOST_COUNTED: Final = 255

# Arrivals of the last second: the catch-up after an outage is a few thousand.
_RECENT_ARRIVALS: Final = 20_000
_RECENT_S: Final = 1.0


class Arrival(NamedTuple):
    """The parsed parts of one message; `time_s` is the event's own, since the epoch."""

    identity: str
    time_s: float


class Sample(NamedTuple):
    """One event as written, and its message at each sink that received it."""

    line: bytes
    received: dict[str, bytes]


class Recent(NamedTuple):
    """One receiver's total and its last second; the lag is None if nothing came."""

    received: int
    per_s: float
    median_lag_s: float | None


class Ledger:
    """The written events, by number."""

    def __init__(self, run: str) -> None:
        """`run` is the prefix of this demo's ids, which identifies foreign messages."""
        self._prefix = f"{run}-"
        self._kinds = bytearray()
        self.samples: dict[int, bytes] = {}
        """Number → line of the events that are shown at the end."""

    def __len__(self) -> int:
        return len(self._kinds)

    def enter(self, kind: int) -> str:
        """Add the next event; returns its id."""
        self._kinds.append(kind)
        return self.identity(len(self._kinds) - 1)

    def identity(self, number: int) -> str:
        """The id of that number."""
        return f"{self._prefix}{number:06d}"

    def number(self, identity: str) -> int | None:
        """The number inside an id; None if it is not of an event written here."""
        digits = identity.removeprefix(self._prefix)
        if digits == identity or not (digits.isascii() and digits.isdigit()):
            return None
        number = int(digits)
        return number if number < len(self._kinds) else None

    def wanted(self, choice: Callable[[EventType], bool]) -> bytes:
        """A byte per event written: 1 where the choice takes its type, else 0."""
        table = bytes(int(index < len(KINDS) and choice(KINDS[index])) for index in range(256))
        return bytes(self._kinds).translate(table)


class Tally:
    """Counts the events of one receiver."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._seen = bytearray()
        self._recent: deque[tuple[float, float]] = deque(maxlen=_RECENT_ARRIVALS)
        self.unique = self.repeats = self.foreign = 0
        self.samples: dict[int, bytes] = {}

    def take(self, arrival: Arrival | None, message: bytes, now_s: float) -> None:
        """Count one message, at seconds since the epoch; None stands for an unreadable one."""
        number = None if arrival is None else self._ledger.number(arrival.identity)
        if arrival is None or number is None:
            self.foreign += 1
            return
        if number >= len(self._seen):
            self._seen.extend(bytes(len(self._ledger) - len(self._seen)))
        before = self._seen[number]
        self._seen[number] = min(before + 1, _MOST_COUNTED)
        if before:
            self.repeats += 1
        else:
            self.unique += 1
        self._recent.append((now_s, max(now_s - arrival.time_s, 0.0)))
        if number in self._ledger.samples:
            self.samples[number] = message

    def recent(self, now_s: float) -> Recent:
        """The total, and rate and lag of the last second."""
        while self._recent and self._recent[0][0] < now_s - _RECENT_S:
            self._recent.popleft()
        lags = [lag for _, lag in self._recent]
        if not lags:
            return Recent(self.unique, 0.0, None)
        return Recent(self.unique, len(lags) / _RECENT_S, median(lags))

    def compare(self, wanted: bytes) -> tuple[list[str], int]:
        """The wanted ids that did not arrive, and the number of unwanted arrivals."""
        seen = self._seen.ljust(len(wanted), b"\0")
        missing = [number for number, want in enumerate(wanted) if want and not seen[number]]
        unwanted = sum(1 for number, count in enumerate(seen) if count and not wanted[number])
        return [self._ledger.identity(number) for number in missing], unwanted


def samples(ledger: Ledger, tallies: Mapping[str, Tally]) -> list[Sample]:
    """The sample events, each with the messages that receivers got of it."""
    return [
        Sample(line, {name: tally.samples[number]
                      for name, tally in tallies.items() if number in tally.samples})
        for number, line in ledger.samples.items()
    ]  # fmt: skip
