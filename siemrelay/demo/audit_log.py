"""The live audit logs: two NDJSON files that grow at a rate, with bursts, and are rotated."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

import trio

from siemrelay.demo.ledger import Ledger
from siemrelay.demo.records import KINDS, pick, record

# Real feeds are bursty: a directory sync, a batch job. Here a quarter of the events is in bursts.
_BURST_EVERY_S: Final = 2.5
_BURST_SHARE: Final = 0.25

# A socket buffer of Linux' default size, 208 KiB, holds this many datagrams: a burst must not be
# lost before the receiver is scheduled.
_BURST_EVENTS: Final = 120

# Often enough to look like a stream, rarely enough to cost nothing.
_WRITE_EVERY_S: Final = 0.01

PRODUCTS: Final = ("alm", "lightrun")

SAMPLED_CATEGORIES: Final = ("account", "configuration")
"""One of each is shown at the end; the first goes to the CEF sink, the second to the JSON sink."""


def due(elapsed_s: float, rate_per_s: float) -> int:
    """The number of events due by now: `rate_per_s` on average, some of them in bursts."""
    burst = min(round(rate_per_s * _BURST_EVERY_S * _BURST_SHARE), _BURST_EVENTS)
    steady_per_s = rate_per_s - burst / _BURST_EVERY_S
    return int(elapsed_s * steady_per_s) + int(elapsed_s // _BURST_EVERY_S) * burst


class AuditLog:
    """One product's log file. Close it when done."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.lines, self.rotations = path, 0, 0
        self._file = path.open("ab")

    def write(self, lines: list[bytes]) -> None:
        """Append whole lines in one write."""
        self._file.write(b"".join(lines))
        self._file.flush()
        self.lines += len(lines)

    def rotate(self) -> Path:
        """Rename the file as logrotate does and continue in a new one; returns the new name."""
        self.rotations += 1
        old = self.path.with_name(f"{self.path.name}.{self.rotations}")
        self.path.rename(old)
        self._file.close()
        self._file = self.path.open("ab")
        return old

    def close(self) -> None:
        """Close the file; it stays."""
        self._file.close()


class Writer:
    """Writes both logs and enters each event into the ledger; the context closes the files."""

    def __init__(self, place: Path, ledger: Ledger, rate_per_s: float) -> None:
        self.logs = {product: AuditLog(place / product / "audit.json") for product in PRODUCTS}
        self._ledger, self._rate_per_s = ledger, rate_per_s
        self._random = random.Random()
        self._unsampled = set(SAMPLED_CATEGORIES)

    async def run(self) -> None:
        """Write at the rate. If cancelled, every event in the ledger has been written."""
        started = trio.current_time()
        while True:
            self.write(due(trio.current_time() - started, self._rate_per_s) - len(self._ledger))
            await trio.sleep(_WRITE_EVERY_S)

    def write(self, count: int) -> None:
        """Write so many events now."""
        lines: dict[str, list[bytes]] = {product: [] for product in self.logs}
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        for _ in range(count):
            product = self._random.choice(PRODUCTS)
            kind = pick(self._random, product)
            number = len(self._ledger)
            line = record(kind, self._ledger.enter(kind), now, self._random)
            lines[product].append(line)
            self._sample(kind, number, line)
        for product, log in self.logs.items():
            if lines[product]:
                log.write(lines[product])

    def _sample(self, kind: int, number: int, line: bytes) -> None:
        """Keep the first event of each category that makes a good example."""
        if KINDS[kind].category in self._unsampled:
            self._unsampled.discard(KINDS[kind].category)
            self._ledger.samples[number] = line.rstrip(b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for log in self.logs.values():
            log.close()
