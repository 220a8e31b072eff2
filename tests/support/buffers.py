"""What tests of many parts do with a disk buffer."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import trio
from trio.testing import MockClock

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.buffer.sink_cursor import Outcome, SinkPolicy
from siemrelay.core.event import Batch
from siemrelay.telemetry.stats import BufferStats

COMMITS, RECORDS = 20, 30


def opened(state_dir: Path) -> DiskBuffer:
    """A large buffer there, which keeps what is delivered."""
    return DiskBuffer(state_dir, max_size_bytes=1 << 30, keep_s=1e6, stats=BufferStats())


def advance(buffer: DiskBuffer, sink: str, next_sequence: int) -> None:
    """Settle every record before `next_sequence` as delivered."""
    passed = max(next_sequence - buffer.cursor(sink).next_sequence, 0)
    buffer.advance(sink, next_sequence, Outcome(delivered=passed))


def killed_buffer(state_dir: Path, stopped: Path | None = None) -> Path:
    """Make what kill -9 leaves of 20 commits of one or two records, and at `stopped` what a stop
    leaves. The sink `a` has four; some records go on over several pages. Returns `state_dir`.
    """
    clock = MockClock()
    trio.run(_fill, state_dir, stopped or state_dir.with_name("stopped"), clock, clock=clock)
    return state_dir


async def _fill(killed: Path, stopped: Path, clock: MockClock) -> None:
    chance = random.Random(5)
    with opened(stopped) as buffer:
        buffer.set_sinks({"a": SinkPolicy()})
        for n in range(COMMITS):
            size = 40_000 if n % 7 == 3 else 300
            lines = [chance.randbytes(size).hex().encode() + b"\n" for _ in range(1 + n % 2)]
            batch = Batch(buffer.end, len(lines), "app", 5.0, b"".join(lines))
            await buffer.append([batch], {("app", "file"): {"offset": n}})
            if n % 5 == 4:
                advance(buffer, "a", n // 5 + 2)
                clock.jump(2)
                await buffer.flusher.flush()
        shutil.copytree(stopped, killed)


def copied(state_dir: Path, to: Path) -> Path:
    """A copy of a state directory, in the place of what is there."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(state_dir, to)
    return to
