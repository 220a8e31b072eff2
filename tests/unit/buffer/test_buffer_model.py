"""The disk buffer against a model that keeps everything in lists, through random lives."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.buffer.recent import KEPT_BYTES
from siemrelay.buffer.sink_cursor import SinkPolicy
from siemrelay.core.event import Batch
from siemrelay.telemetry.stats import BufferStats
from tests.support.buffers import advance

NAMES = ("a", "b", "c", "d")
STEPS = 60


@dataclass
class Model:
    """What must be true: records by sequence number, cursors, positions."""

    records: dict[int, bytes] = field(default_factory=dict)
    rows: list[tuple[int, int, float]] = field(default_factory=list)  # first, next, received
    end: int = 1
    cursors: dict[str, int] = field(default_factory=dict)
    drops: dict[str, bool] = field(default_factory=dict)
    disabled: dict[str, bool] = field(default_factory=dict)
    positions: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def oldest(self) -> int:
        return self.rows[0][0] if self.rows else self.end

    def delete(self, received_before: float) -> None:
        passed = min(self.cursors.values(), default=self.end)
        gone = [r for r in self.rows if r[1] <= passed and r[2] < received_before]
        self.rows = [r for r in self.rows if r not in gone]
        for first, after, _ in gone:
            for sequence in range(first, after):
                del self.records[sequence]


class Life:
    """A buffer and its model, doing the same things."""

    def __init__(self, rng: random.Random, state_dir: Path) -> None:
        self.rng, self.state_dir = rng, state_dir
        self.model = Model()
        self.clock = 1000.0
        self.buffer = self.open()
        self.choose_sinks()

    def open(self) -> DiskBuffer:
        return DiskBuffer(
            self.state_dir, max_size_bytes=60_000, keep_s=1e9, stats=BufferStats(),
            recent_bytes=self.rng.choice([0, 10_000, KEPT_BYTES]),
        )  # fmt: skip

    def choose_sinks(self) -> None:
        model, rng = self.model, self.rng
        names = rng.sample(NAMES, rng.randint(1, 3))
        oldest = {name: rng.random() < 0.5 for name in names}
        model.disabled = {name: rng.random() < 0.3 for name in names}
        model.drops = {name: model.disabled[name] or rng.random() < 0.5 for name in names}
        gone = self.buffer.set_sinks(
            {
                name: SinkPolicy(model.drops[name], oldest[name], not model.disabled[name])
                for name in names
            }
        )
        assert gone == sorted(model.cursors.keys() - set(names))
        model.cursors = {
            name: max(
                model.cursors.get(name, model.oldest if oldest[name] else model.end), model.oldest
            )
            for name in names
        }

    async def append(self) -> None:
        model, batches, first = self.model, list[Batch](), self.model.end
        for _ in range(self.rng.randint(0, 3)):
            count = self.rng.randint(1, 4)
            self.clock += self.rng.choice([-1.0, 1.0, 1.0])  # clocks are set back at times
            lines = [self.rng.randbytes(self.rng.choice([5, 500, 5000])).hex().encode()
                     for _ in range(count)]  # fmt: skip
            payload = b"".join(line + b"\n" for line in lines)
            batches.append(Batch(first, count, "s", self.clock, payload))
            model.records.update(zip(range(first, first + count), lines, strict=True))
            model.rows.append((first, first + count, self.clock))
            first += count
        key, offset = self.rng.choice("xyz"), self.rng.randint(0, 99)
        await self.buffer.append(batches, {("s", key): {"offset": offset}})
        model.end, model.positions[key] = first, {"offset": offset}

    async def advance(self) -> None:
        name = self.rng.choice(list(self.model.cursors))
        to = self.rng.randint(self.model.cursors[name], self.model.end)
        advance(self.buffer, name, to)
        self.model.cursors[name] = to
        if self.rng.random() < 0.5:
            await self.buffer.flusher.flush()

    async def read(self) -> None:
        position = self.rng.randint(1, self.model.end)
        found: dict[int, bytes] = {}
        while position < self.model.end and any(s >= position for s in self.model.records):
            for batch in await self.buffer.read(position):
                assert batch.next_sequence > position
                for sequence, record in enumerate(batch.records(), batch.first_sequence):
                    if sequence >= position:
                        found[sequence] = record
                position = batch.next_sequence
        kept = {s: r for s, r in self.model.records.items() if s in found}
        # The memory may still hold what was deleted from disk; never anything else.
        assert all(found[s] == r for s, r in kept.items())
        assert set(kept) >= {s for s in self.model.records if found and s >= min(found)}

    async def delete(self) -> None:
        before = self.clock + self.rng.choice([-10.0, -3.0, 5.0])
        while await self.buffer.retention.delete(before):
            pass
        self.model.delete(before)

    async def drop(self) -> None:
        model, before = self.model, dict(self.model.cursors)
        dropped = {n: self.buffer.cursor(n).counts.dropped for n in before}
        made = await self.buffer.retention.make_room(self.rng.choice([1, 10_000, 50_000]))
        for name in before:
            place = self.buffer.cursor(name)
            assert place.next_sequence >= before[name]
            assert place.counts.dropped - dropped[name] == place.next_sequence - before[name]
            if place.next_sequence > before[name]:
                assert model.drops[name]
            model.cursors[name] = place.next_sequence
        model.rows = [row for row in model.rows if row[0] >= self.buffer.oldest or row[1] > min(
            model.cursors.values())]  # fmt: skip
        kept = {s for first, after, _ in model.rows for s in range(first, after)}
        model.records = {s: r for s, r in model.records.items() if s in kept}
        if not made:
            held = min(model.cursors, key=lambda name: model.cursors[name])
            assert not all(model.drops.values()) or model.cursors[held] == model.end

    def reopen(self) -> None:
        self.buffer.__exit__(None, None, None)
        self.buffer = self.open()
        self.choose_sinks()

    def check(self) -> None:
        buffer, model = self.buffer, self.model
        assert buffer.end == model.end
        assert buffer.oldest == model.oldest
        for name, cursor in model.cursors.items():
            assert buffer.oldest <= buffer.cursor(name).next_sequence == cursor <= buffer.end
        assert buffer.positions("s") == model.positions
        with closing(sqlite3.connect(self.state_dir / "buffer.db")) as beside:
            on_disk = beside.execute(
                "SELECT first_sequence, first_sequence + count, received_at FROM batches "
                "ORDER BY first_sequence"
            ).fetchall()
        assert on_disk == model.rows
        assert (buffer.stats.size_bytes == 0) == (not model.rows)


@pytest.mark.parametrize("seed", range(25))
async def test_a_random_life_agrees_with_the_model_at_every_step(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    life = Life(rng, tmp_path / "state")
    try:
        for _ in range(STEPS):
            act = rng.choice([life.append] * 3 + [life.advance] * 3 + [life.read] * 2
                             + [life.delete, life.drop])  # fmt: skip
            await act()
            if rng.random() < 0.05:
                life.reopen()
            life.check()
    finally:
        life.buffer.__exit__(None, None, None)
