"""A buffer's life in a process of its own: `python -m tests.torture.workload ROOT SEED STEPS`.

ROOT/state is the state directory; what was acknowledged, and to whom which record was shown, goes
to ROOT/marks, a JSON object a line, just after it happened (`laws.py` reads them). Sinks `a` and
`b`; the source `file` keeps a position, `hook` has none. `a` is under seals, by the relay's own
`SealedStream`, and has several batches in flight. Ends in good order, or as if killed.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import zlib
from collections import deque
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import trio

from siemrelay.buffer import buffer as buffer_module
from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.buffer.dead_letters import letter
from siemrelay.buffer.reserve import Sizes
from siemrelay.buffer.sink_cursor import Outcome, SinkPolicy
from siemrelay.core.errors import BufferBroken, BufferFull, SinkWaits, StartRefused
from siemrelay.core.event import Batch
from siemrelay.core.filters import EventFilter, EventsOptions
from siemrelay.formats.json import Json, JsonOptions
from siemrelay.pipeline.batching import DeliveryBatch
from siemrelay.pipeline.formatting.sink_format import SinkFormat
from siemrelay.pipeline.sealing.keys import SealKeys
from siemrelay.pipeline.sealing.maker import SealMaker
from siemrelay.pipeline.sealing.sealed_stream import SealedStream
from siemrelay.pipeline.sealing.settings import StreamSettings
from siemrelay.pipeline.sealing.witness import StateWitness
from siemrelay.proof.leaf import hash_of
from siemrelay.sinks.contract import Refusal
from siemrelay.telemetry.stats import BufferStats, SinkStats
from tests.support.events.products import CATALOGUE

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

    def __init__(
        self, buffer: DiskBuffer, state_dir: Path, marks: int, chance: random.Random
    ) -> None:
        self._buffer, self._marks, self._chance = buffer, marks, chance
        self._next = buffer.positions("file").get("log", {"lines": 0})["lines"] + 1
        self._stream, self._in_flight = sealed_stream(buffer, state_dir), deque[DeliveryBatch]()
        self._sent = 0
        self.mark(key=str(self._stream.keys.make()[-1].verifier))

    async def connect(self) -> None:
        """Go on with the sealed stream of `a` at its cursor. Raises SinkWaits."""
        self._in_flight.clear()
        await self._stream.stream.begin()
        self._sent = self._buffer.cursor("a").next_sequence
        self.mark(stream=self._stream.stream.state.name)

    def acts(self) -> list[Act]:
        """What it does, as often as it is in the list: mostly intake, or mostly delivery."""
        often = self._chance.choice(((6, 6, 3), (2, 12, 12)))
        each = zip((self.append, self.deliver, self.flush), often, strict=True)
        acts = [act for act, times in each for _ in range(times)]
        settled = [self.settle] * 2 * often[1]
        return [*acts, *settled, self.refuse, self.delete, self.shrink, self.seal, self.seal]

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
        position = self._buffer.cursor(sink).next_sequence if sink == "b" else self._sent
        if position == self._buffer.end:
            return
        batch = (await self._buffer.read(position))[0]
        end = self._chance.randint(max(position, batch.first_sequence) + 1, batch.next_sequence)
        pending = self._stream.stream.state.pending if sink == "a" else None
        if pending is not None and position < pending.position:
            end = min(end, pending.position)  # as it was before it: a seal stands between two rows
        shown = {n: d for n, d in seen([batch]).items() if position <= n < end}
        if sink == "a":
            await self._send(shown, end)
            return
        self.mark(sink=sink, sent=shown)
        passed = end - position
        filtered = self._chance.randint(0, passed)
        outcome = Outcome(delivered=passed - filtered, filtered=filtered, confirmed_at=time.time())
        self._buffer.advance(sink, end, outcome)

    async def _send(self, shown: dict[int, int], end: int) -> None:
        """Send records to `a` under numbers, behind a stored seal whose turn it is."""
        stream = self._stream.stream
        if stream.turn() is not None:
            await self.seal()
        texts = [message(digest) for digest in shown.values() if is_wanted(digest)]
        first = stream.state.tree.size + sum(len(batch.messages) for batch in self._in_flight)
        batch = DeliveryBatch(end, texts, first_number=first, filtered=len(shown) - len(texts))
        stream.sent(batch)
        self._mark_numbers(batch)
        self.mark(sink="a", sent=shown)
        self._in_flight.append(batch)
        self._sent = end

    def _mark_numbers(self, batch: DeliveryBatch) -> None:
        leaves = (hash_of(text).hex() for text in batch.messages)
        self.mark(numbers=dict(enumerate(leaves, batch.first_number)))

    async def seal(self) -> None:
        """Send a stored seal whose turn it is, or make one, unless one is on its way."""
        stream = self._stream.stream
        if not stream.comes_next(self._sent):
            return
        batch = await stream.next_seal(self._sent)
        assert batch is not None
        self._mark_numbers(batch)
        self._in_flight.append(batch)

    async def settle(self) -> None:
        """What was sent to `a` first is confirmed."""
        if not self._in_flight:
            return
        batch, stream = self._in_flight.popleft(), self._stream.stream
        confirmed = await stream.confirmed(batch, ()) if batch.messages else None
        delivered = 0 if batch.seal else len(batch.messages)
        outcome = Outcome(
            delivered=delivered, filtered=batch.filtered, confirmed_at=time.time(),
            confirmed=confirmed,
        )  # fmt: skip
        self._buffer.advance("a", batch.next_sequence, outcome)
        stream.noted()

    async def refuse(self) -> None:
        sink = self._chance.choice(SINKS)
        position = self._buffer.cursor(sink).next_sequence
        found = await self._buffer.records({position})
        if position not in found:
            return
        refused = letter(sink, position, "400", "no", found[position], b"as sent")
        confirmed = None
        if sink == "a":
            (digest,) = seen(found.values()).values()
            stream = self._stream.stream
            if self._in_flight or stream.turn() is not None or not is_wanted(digest):
                return
            batch = DeliveryBatch(
                position + 1, [message(digest)], first_number=stream.state.tree.size
            )
            stream.sent(batch)
            self._mark_numbers(batch)
            confirmed, self._sent = (
                await stream.confirmed(batch, [Refusal(0, "400", "no")]),
                position + 1,
            )
        outcome = Outcome(refused=1, confirmed=confirmed)
        await self._buffer.store_dead_letters([refused], position + 1, outcome)
        self.mark(sink=sink, buried=seen(found.values()))

    async def flush(self) -> None:
        await self._buffer.flusher.flush()

    async def delete(self) -> None:
        await self._buffer.retention.delete(received_before=float("inf"))

    async def shrink(self) -> None:
        await self._buffer.retention.reclaim()


def message(digest: int) -> bytes:
    """What `a` is sent for a record."""
    return b"%d" % digest


def is_wanted(digest: int) -> bool:
    """Whether the filter of `a` takes a record."""
    return digest % 4 > 0


class Sealing(NamedTuple):
    """What a relay has for the sealed stream of `a`."""

    stream: SealedStream
    maker: SealMaker
    keys: SealKeys


@cache
def _messages() -> SinkFormat:
    return SinkFormat(EventFilter(EventsOptions(), CATALOGUE), Json(JsonOptions()), number="x" * 27)


def sealed_stream(buffer: DiskBuffer, state_dir: Path) -> Sealing:
    """The stream as the relay makes it."""
    settings = StreamSettings("relay", "a", "tcp", "json", "c0ffee", 0.0, 1e9, state_dir)
    maker, keys = SealMaker(settings, _messages(), dict), SealKeys(state_dir, "relay")
    keys.make()
    return Sealing(SealedStream(settings, maker, buffer, keys, SinkStats("a")), maker, keys)


def _known(path: Path) -> tuple[int, int] | None:
    """For a crash image, whose files are all new: a witness that is there is the old one."""
    return (1, 1) if path.exists() else None


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
        patch.object(StateWitness, "_found", staticmethod(_known)),
        DiskBuffer(
            root / "state", max_size_bytes=1 << 30, keep_s=1e9, stats=BufferStats()
        ) as buffer,
    ):
        buffer.set_sinks({name: SinkPolicy() for name in SINKS})
        life = Life(buffer, root / "state", marks, chance)
        acts, connected = life.acts(), False
        for _ in range(steps):
            act = chance.choice(acts)
            try:
                if not connected:
                    await life.connect()
                    connected = True
                await act()
            except BufferFull:
                # As the intake does: make room, and hand over the same again later.
                await buffer.retention.reclaim()
            except SinkWaits:
                connected = False
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
