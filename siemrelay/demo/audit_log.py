"""The live audit logs: two NDJSON files that grow at a rate, with bursts, and are rotated."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

import trio

from siemrelay.demo.ledger import Ledger
from siemrelay.demo.records import pick, record

# Real feeds come in clumps: a directory sync, a batch job. A quarter of the events does here.
_BURST_EVERY_S: Final = 2.5
_BURST_SHARE: Final = 0.25

# The UDP receiver's socket buffer holds this many datagrams even where the system allows it no
# more than Linux' default of 208 KiB: a burst must not be lost before the receiver is scheduled.
_BURST_EVENTS: Final = 120

# Often enough to look like a stream, seldom enough to cost nothing.
_WRITE_EVERY_S: Final = 0.01

PRODUCTS: Final = ("alm", "lightrun")


def due(elapsed_s: float, rate_per_s: float) -> int:
    """How many events are to be written by now: `rate_per_s` on average, some of them at once."""
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
        """Rename the file, as logrotate does, and go on in a new one; returns the new name."""
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
    """Writes both logs; what it wrote is in the ledger. Leaving the context closes the files."""

    def __init__(self, place: Path, ledger: Ledger, rate_per_s: float) -> None:
        self.logs = {product: AuditLog(place / product / "audit.json") for product in PRODUCTS}
        self._ledger, self._rate_per_s = ledger, rate_per_s
        self._random = random.Random()

    async def run(self) -> None:
        """Write at the rate. If cancelled, every event in the ledger has been written."""
        started = trio.current_time()
        while True:
            self._write(due(trio.current_time() - started, self._rate_per_s) - len(self._ledger))
            await trio.sleep(_WRITE_EVERY_S)

    def _write(self, count: int) -> None:
        lines: dict[str, list[bytes]] = {product: [] for product in self.logs}
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        for _ in range(count):
            product = self._random.choice(PRODUCTS)
            kind = pick(self._random, product)
            lines[product].append(record(kind, self._ledger.enter(kind), now, self._random))
        for product, log in self.logs.items():
            if lines[product]:
                log.write(lines[product])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for log in self.logs.values():
            log.close()
