"""Sinks that are behind share what one of them has read from disk."""

from __future__ import annotations

import weakref
from typing import Any

import trio

from siemrelay.buffer.disk_reads import DiskReads
from siemrelay.core.event import Batch

PATIENCE_S = 10.0


class Counted:
    """A store that has a batch of one record at every place, and counts its reads."""

    def __init__(self) -> None:
        self.reads = 0

    def read(self, sequence: int, before: int, limit_bytes: int) -> list[Batch]:
        self.reads += 1
        return [Batch(n, 1, "app", 0.0, b"x\n") for n in (sequence, sequence + 1)]


async def test_ten_sinks_at_one_place_read_it_once_while_one_of_them_holds_it() -> None:
    store: Any = Counted()
    reads, found = DiskReads(store), list[list[Batch]]()

    async def read() -> None:
        found.append(await reads.read(1, 100))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(read)
    assert store.reads == 1
    assert {id(batches[0]) for batches in found} == {id(found[0][0])}
    assert (await reads.read(2, 100))[0] is found[0][1], "the second batch of the first read"
    held = weakref.ref(found[0][0])
    del found[:]
    with trio.fail_after(PATIENCE_S):
        while held() is not None:  # the thread that read it may not have ended its work
            await trio.lowlevel.checkpoint()
    await read()
    assert store.reads == 2, "nobody held it any more"
