"""Files of a stopped or killed relay are damaged at random: what is lost is reported."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from siemrelay.buffer.salvage import put_in_place, salvage
from siemrelay.buffer.sink_cursor import SinkPolicy
from siemrelay.core.errors import BufferBroken
from siemrelay.core.event import Batch
from tests.support.buffers import RECORDS, copied, killed_buffer, opened

# Bytes of a disk's sector, a page of the kernel's, one of the database's, and less.
SIZES = (16, 512, 4096, 16384)

# What `a` has been sent.
SENT = 4

FILES = {
    "killed": ["buffer.db-wal"] * 3 + ["buffer.db", "high-watermark"],
    "stopped": ["buffer.db"] * 3 + ["high-watermark"],
}


def flip(content: bytearray, chance: random.Random, times: int) -> None:
    for _ in range(times):
        content[chance.randrange(len(content))] ^= chance.randrange(1, 256)


def overwrite(content: bytearray, chance: random.Random, how: str) -> None:
    """Fill a sector with noise, zeros or another one, or exchange the two; or the file ends."""
    size = min(chance.choice(SIZES), len(content))
    at, other = (chance.randrange(len(content) // size) * size for _ in range(2))
    here, there = bytes(content[at : at + size]), bytes(content[other : other + size])
    match how:
        case "noise":
            content[at : at + size] = chance.randbytes(size)
        case "zeros":
            content[at : at + size] = bytes(size)
        case "another":
            content[at : at + size] = there
        case "exchange":
            content[at : at + size], content[other : other + size] = there, here
        case "end":
            del content[at:]


DAMAGE = (1, 1, 2, 16, "noise", "zeros", "another", "exchange", "end")


def damage(path: Path, chance: random.Random) -> str:
    content, how = bytearray(path.read_bytes()), chance.choice(DAMAGE)
    if isinstance(how, int):
        flip(content, chance, how)
    else:
        overwrite(content, chance, how)
    path.write_bytes(content)
    return f"{path.name}: {how}"


async def delivered(state_dir: Path) -> tuple[int, dict[int, bytes], int]:
    """Start, and read all that `a` waits for: the end, the records, and how many are missing."""
    with opened(state_dir) as buffer:
        buffer.set_sinks({"a": SinkPolicy()})
        cursor, end, got = buffer.cursor("a"), buffer.end, dict[int, bytes]()
        position = cursor.next_sequence
        while position < end:
            batches = await buffer.read(position)
            for batch in batches:
                got |= dict(enumerate(batch.records(), batch.first_sequence))
            position = batches[-1].next_sequence
        await buffer.append([Batch(end, 1, "app", 1.0, b"next\n")], {})
        return end, got, cursor.counts.lost


@pytest.mark.parametrize("times", [6, pytest.param(300, marks=pytest.mark.slow)])
def test_whatever_is_damaged_no_record_is_another_and_each_that_is_gone_is_reported(
    ram: Path, seed: int, times: int
) -> None:
    chance, found = random.Random(seed), Counter[str]()
    states = {name: ram / name for name in FILES}
    killed_buffer(states["killed"], states["stopped"])
    _, whole, _ = trio.run(delivered, copied(states["stopped"], ram / "whole"))
    assert [*whole] == [*range(SENT + 1, RECORDS + 1)]
    for number in range(times):
        name = chance.choice([*FILES])
        state_dir = copied(states[name], ram / "state")
        done = damage(state_dir / chance.choice(FILES[name]), chance)
        reported = set[int]()
        with capture_logs() as said:
            try:
                end, got, _ = trio.run(delivered, state_dir)
                came = "starts"
            except BufferBroken:
                path, new = state_dir / "buffer.db", state_dir / "new"
                for gap in salvage(path, new).gaps:
                    reported |= {*range(gap.first, gap.last + 1)}
                put_in_place(path, new)
                end, got, _ = trio.run(delivered, state_dir)
                came = "is salvaged"
        errors = [line for line in said if line["log_level"] == "error"]
        for line in errors:
            if line["event"] == "acknowledged records are gone from the disk":
                reported |= {*range(line["from_sequence"], line["to_sequence"] + 1)}
        assert end == RECORDS + 1, (number, name, done)
        for sequence, record in whole.items():
            if (here := got.get(sequence)) is None:
                assert sequence in reported, (number, name, done, sequence)
            elif here != record:
                assert b"damaged" in here, (number, name, done, sequence)
                assert errors, (number, name, done, sequence)
        found[f"{name}, {done} {came}, {'all' if got == whole else 'some'} records"] += 1
    print("\n".join(f"{count} {what}" for what, count in sorted(found.items())))
