"""Batches that hold one long record take turns with everybody else."""

from __future__ import annotations

import trio

from siemrelay.core.event import Batch, DecodedBatch
from siemrelay.pipeline.decode_cache import DecodeCache


class Undecoding:
    """A decoder that nothing is to be decoded with."""

    def decode(self, batch: Batch) -> DecodedBatch:
        raise AssertionError("a turn decodes nothing")


async def test_long_records_leave_turns_to_others() -> None:
    """Five sinks want ten long records each; somebody who needs four turns waits for one record."""
    cache = DecodeCache({}, Undecoding(), share=True)
    batch = Batch(1, 1, "hooks", 0.0, b"x" * (2 << 20) + b"\n")
    heavy = light = 0
    most = 0

    async def sink() -> None:
        nonlocal heavy
        for _ in range(10):
            await cache.turn(batch)
            heavy += 1  # here it decodes and formats

    async def bystander() -> None:
        nonlocal light, most
        while heavy < 50:
            before = heavy
            for _ in range(4):
                await trio.lowlevel.checkpoint()
            light, most = light + 1, max(most, heavy - before)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(sink)
        nursery.start_soon(bystander)
    assert most <= 1
    assert light >= 40


async def test_usual_batches_wait_for_nobody() -> None:
    cache = DecodeCache({}, Undecoding(), share=True)
    batch = Batch(1, 1, "hooks", 0.0, b"x" * (512 << 10) + b"\n")
    with trio.CancelScope() as scope:
        scope.cancel()
        await cache.turn(batch)  # without a checkpoint it cannot be cancelled
        return
    raise AssertionError("it waited")
