"""A buffer's life in a process of its own: `python -m tests.torture.workload ROOT SEED STEPS`.

ROOT/state is the state directory; what was acknowledged, and to whom which record was shown, goes
to ROOT/marks, a JSON object a line, just after it happened (`laws.py` reads them). Sinks `a`, which
is under seals, and `b`; the source `file` keeps a position, `hook` has none. Ends in good order, or
as if killed.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import trio
from msgspec.structs import replace

from siemrelay.buffer import buffer as buffer_module
from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.buffer.cursors import Outcome, SinkPolicy
from siemrelay.buffer.dead_letters import letter
from siemrelay.buffer.reserve import Sizes
from siemrelay.core.errors import BufferBroken, BufferFull, StartRefused
from siemrelay.core.event import Batch
from siemrelay.proof.merkle import leaf_hash
from siemrelay.proof.stream import Confirmed, PendingSeal, StreamState
from siemrelay.telemetry.stats import BufferStats

SINKS = ("a", "b")

# So small that the log is copied into the database every few steps.
SIZES = Sizes(log_bytes=256 << 10, reserve_bytes=1 << 20)

DISK_FAILED, NOT_STARTED = os.EX_IOERR, os.EX_TEMPFAIL

Act = Callable[[], Awaitable[None]]


def digest(record: bytes) -> int:
    """What tells records apart in the marks."""
    return zlib.crc32(record)


class Life:
    """One process' part of it."""

    def __init__(self, buffer: DiskBuffer, marks: int, chance: random.Random) -> None:
        self._buffer, self._marks, self._chance = buffer, marks, chance
        self._next = buffer.positions("file").get("log", {"lines": 0})["lines"] + 1

    def acts(self) -> list[Act]:
        """What it does, as often as it is in the list: mostly intake, or mostly delivery."""
        often = self._chance.choice(((6, 6, 3), (2, 12, 12)))
        each = zip((self.append, self.deliver, self.flush), often, strict=True)
        acts = [act for act, times in each for _ in range(times)]
        return [*acts, self.refuse, self.delete, self.shrink, self.seal]

    def mark(self, **what: Any) -> None:
        """Write it down: whatever comes later in the write log came after this."""
        os.write(self._marks, json.dumps(what).encode() + b"\n")

    async def append(self) -> None:
        chance, first = self._chance, self._buffer.end
        batches, lines = list[Batch](), self._next
        for _ in range(chance.randint(1, 3)):
            source, count = chance.choice(("file", "hook")), chance.randint(1, 4)
            records = []
            for _ in range(count):
                number = lines if source == "file" else chance.getrandbits(64)
                lines += source == "file"
                padding = chance.randbytes(chance.choice((10, 300, 9000))).hex()
                records.append(b"%s %d %s\n" % (source.encode(), number, padding.encode()))
            batches.append(Batch(first, count, source, time.time(), b"".join(records)))
            first += count
        await self._buffer.append(batches, {("file", "log"): {"lines": lines - 1}})
        self._next = lines
        self.mark(stored=seen(batches))

    async def deliver(self) -> None:
        sink = self._chance.choice(SINKS)
        position = self._buffer.cursor(sink).next_sequence
        if position == self._buffer.end:
            return
        batch = (await self._buffer.read(position))[0]
        end = self._chance.randint(max(position, batch.first_sequence) + 1, batch.next_sequence)
        shown = {n: d for n, d in seen([batch]).items() if position <= n < end}
        self.mark(sink=sink, sent=shown)
        passed = end - position
        filtered = self._chance.randint(0, passed)
        outcome = Outcome(
            delivered=passed - filtered, filtered=filtered, confirmed_at=time.time(),
            confirmed=self._confirmed(sink, passed - filtered),
        )  # fmt: skip
        self._buffer.advance(sink, end, outcome)

    def _confirmed(self, sink: str, messages: int) -> Confirmed | None:
        stream = self._buffer.cursor(sink).stream
        if stream is None:
            return None
        leaves = [
            leaf_hash(b"%d" % n) for n in range(stream.tree.size, stream.tree.size + messages)
        ]
        return Confirmed(stream.tree.extended(leaves))

    async def seal(self) -> None:
        cursor = self._buffer.cursor("a")
        stream = cursor.stream or StreamState(
            "relay/a/abcdefgh22", "c0ffee", "start", cursor.next_sequence, cursor.next_sequence
        )
        size = stream.tree.size
        pending = PendingSeal(size, cursor.next_sequence, size, "", 0, time.time(), "seal")
        await self._buffer.change_stream("a", lambda now: replace(now or stream, pending=pending))
        self.mark(sealed=size)

    async def refuse(self) -> None:
        sink = self._chance.choice(SINKS)
        position = self._buffer.cursor(sink).next_sequence
        found = await self._buffer.records({position})
        if position not in found:
            return
        refused = letter(sink, position, "400", "no", found[position], b"as sent")
        outcome = Outcome(refused=1, confirmed=self._confirmed(sink, 1))
        await self._buffer.store_dead_letters([refused], position + 1, outcome)
        self.mark(sink=sink, buried=seen(found.values()))

    async def flush(self) -> None:
        await self._buffer.flush_cursors()

    async def delete(self) -> None:
        await self._buffer.delete_delivered(received_before=float("inf"))

    async def shrink(self) -> None:
        await self._buffer.reclaim()


def seen(batches: Any) -> dict[int, int]:
    """Sequence number → digest of every record in these batches."""
    return {
        batch.first_sequence + i: digest(record)
        for batch in batches
        for i, record in enumerate(batch.records())
    }


async def live(root: Path, chance: random.Random, steps: int) -> None:
    """Do so many acts; half of the time the process ends here, as if killed."""
    marks = os.open(root / "marks", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with (
        patch.object(buffer_module, "sizes_for", lambda _: SIZES),
        DiskBuffer(
            root / "state", max_size_bytes=1 << 30, keep_s=1e9, stats=BufferStats()
        ) as buffer,
    ):
        buffer.set_sinks({name: SinkPolicy() for name in SINKS})
        life = Life(buffer, marks, chance)
        acts = life.acts()
        for _ in range(steps):
            act = chance.choice(acts)
            try:
                await act()
            except BufferFull:
                # As the intake does: make room, and hand over the same again later.
                await buffer.reclaim()
        if chance.random() < 0.5:
            os._exit(0)


def run(root: Path, seed: str, steps: int) -> int:
    """One life; the exit code that the relay would have."""
    try:
        trio.run(live, root, random.Random(seed), steps)
    except (BufferBroken, StartRefused) as error:
        print(error, file=sys.stderr)
        return DISK_FAILED if isinstance(error, BufferBroken) else NOT_STARTED
    return 0


if __name__ == "__main__":
    os._exit(run(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
