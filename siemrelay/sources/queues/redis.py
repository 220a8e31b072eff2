"""Redis Streams, as one of a consumer group: what a relay that died held, others take over."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import msgspec
import trio

from siemrelay.core.extras import REDIS as EXTRA
from siemrelay.sources.contract import Intake, Position, Records, SourceKind
from siemrelay.sources.queues.redis_client import connected, told
from siemrelay.sources.queues.redis_options import RedisOptions
from siemrelay.sources.queues.window import Window

# A read waits so long for entries: a stop waits for it.
_BLOCK_MS: Final = 500

# Ids in one command about entries held already.
_IDS: Final = 1000

# While there is no room, what is held is shown to be alive at least this often.
_WAIT_S: Final = 30.0

_CONSUMER: Final = "consumer"
"""Of the position: {"name": under which this relay reads, made up at its first start}."""

_GROUP: Final = "group"
"""Of the position: {"name": of the group that is there, "stream": of which}."""


class RedisSource:
    """Every entry of the stream that the group gives to this relay; see `acknowledge`.

    What was read and not acknowledged stays pending in Redis: this relay reads it again after a
    restart, or another one takes it over.
    """

    def __init__(self, name: str, options: RedisOptions) -> None:
        self.name, self._options = name, options

    async def run(self, intake: Intake, *, drain: bool) -> None:
        """Read for ever; with `drain`, until the stream has nothing for us. See `Source`.

        Raises QueueFailed.
        """
        reading = _Reading(self._options, intake, await self._consumer(intake))
        try:
            await reading.window.run(partial(reading.read, drain=drain), lambda: None)
        finally:
            reading.close()

    async def _consumer(self, intake: Intake) -> str:
        if self._options.consumer is not None:
            return self._options.consumer
        stored = intake.positions().get(_CONSUMER, {}).get("name")
        if stored is not None:
            return str(stored)
        name = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        await intake.store(Records(b"", 0, (Position(_CONSUMER, {"name": name}),)))
        return name


class _Reading:
    """One connection's reading; `window` is what is between it and the acknowledgement."""

    def __init__(self, options: RedisOptions, intake: Intake, consumer: str) -> None:
        self._options, self._intake, self._consumer = options, intake, consumer
        self._redis = connected(options)
        self._claim_from = _START
        self._next_touch = 0.0
        self.window: Window[list[bytes]] = Window(
            intake, self._acknowledge, delivered=options.acknowledge == "delivered",
            max_records=options.in_flight, max_bytes=options.in_flight_size,
        )  # fmt: skip

    def close(self) -> None:
        """Let go of the connections."""
        self._redis.close()

    async def read(self, *, drain: bool) -> None:
        """Hand over what the group has for us."""
        await self._make_group()
        next_claim = 0.0
        again: bytes | None = b"0"  # first what this relay held before its restart
        while True:
            await self._room()
            if again is not None:
                again = await self._read_held(again)
                continue
            claimed, now = 0, trio.current_time()
            if now >= next_claim:
                claimed = await self._claim()
                if self._claim_from == _START:
                    next_claim = now + self._options.claim_after / 2
            taken = await self._hand_over(await self._call(self._new, b">", None if drain else 1))
            if drain and not taken and not claimed and self._claim_from == _START:
                return

    async def _room(self) -> None:
        """Wait until more may be read; what is held stays ours however long that takes."""
        while True:
            self._intake.progress()
            if (now := trio.current_time()) >= self._next_touch:
                await self._touch()
                self._next_touch = now + self._options.claim_after / 3
            if not self.window.full:
                return
            with trio.move_on_at(min(self._next_touch, now + _WAIT_S)):
                await self.window.room()

    async def _read_held(self, after: bytes) -> bytes | None:
        """Pending entries of ours after that id; returns the last one's, None at the end."""
        found = await self._call(self._new, after, None)
        await self._hand_over(found)
        return found[-1][0] if found else None

    async def _claim(self) -> int:
        """Take over what others have held for too long, a part of the pending entries at a time.

        Begins where the last part ended: at the front may be what the living hold.
        """
        idle_ms = int(self._options.claim_after * 1000)
        found = await self._call(
            self._redis.xautoclaim, self._options.stream, self._options.group, self._consumer,
            idle_ms, self._claim_from, self._options.batch,
        )  # fmt: skip
        self._claim_from = found[0].decode()
        gone = found[2] if len(found) > 2 else []
        self._intake.lost(len(gone))
        return await self._hand_over(found[1])

    async def _touch(self) -> None:
        """Show that what is held here is not forgotten, or others would take it over."""
        held = [one for ids in self.window.tokens() for one in ids]
        for i in range(0, len(held), _IDS):
            await self._call(
                partial(self._redis.xclaim, justid=True), self._options.stream,
                self._options.group, self._consumer, 0, held[i : i + _IDS],
            )  # fmt: skip

    def _new(self, after: bytes, block: int | None) -> list[tuple[bytes, Any]]:
        options = self._options
        found = self._redis.xreadgroup(
            options.group, self._consumer, {options.stream: after}, count=options.batch,
            block=_BLOCK_MS if block else None,
        )  # fmt: skip
        return list(found[0][1]) if found else []

    async def _make_group(self) -> None:
        options = self._options
        ours = {"name": options.group, "stream": options.stream}
        # A group that was there and is gone, with a Redis that keeps nothing on its disk perhaps,
        # has read nothing of what is in the stream now.
        known = self._intake.positions().get(_GROUP) == ours
        await self._call(
            self._create_group, "0" if known or options.start_at == "beginning" else "$"
        )
        if not known:
            await self._intake.store(Records(b"", 0, (Position(_GROUP, ours),)))

    def _create_group(self, start: str) -> None:
        import redis

        try:
            self._redis.xgroup_create(
                self._options.stream, self._options.group, start, mkstream=True
            )
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def _hand_over(self, entries: list[tuple[bytes, Any]]) -> int:
        # An entry that was trimmed off the stream meanwhile has no fields any more.
        trimmed = [number for number, fields in entries if not fields]
        if trimmed:
            self._intake.lost(len(trimmed))
            await self._acknowledge([trimmed])
        whole = [(number, fields) for number, fields in entries if fields]
        if whole:
            records = list(self._records([fields for _, fields in whole]))
            self.window.hand_over(records, [number for number, _ in whole])
        return len(whole)

    def _records(self, entries: list[dict[bytes, bytes]]) -> Iterator[bytes]:
        wanted = self._options.field and self._options.field.encode()
        for fields in entries:
            if wanted is not None and wanted in fields:
                yield fields[wanted]
            elif len(fields) == 1:
                (value,) = fields.values()
                yield value
            else:
                yield _encode({
                    _text(name): _text(value)
                    for name, value in fields.items()
                })  # fmt: skip

    async def _acknowledge(self, batches: list[list[bytes]]) -> None:
        ids = [one for batch in batches for one in batch]
        for i in range(0, len(ids), _IDS):
            await self._call(
                self._redis.xack, self._options.stream, self._options.group, *ids[i : i + _IDS]
            )

    async def _call(self, call: Any, *arguments: Any) -> Any:
        with told(self._options.stream):
            return await self.window.in_thread(call, *arguments)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")  # JSON holds texts only: each byte is shown


_START: Final = "0-0"
"""Before every id."""

_encode: Final = msgspec.json.Encoder().encode


REDIS: Final = SourceKind(
    RedisOptions, RedisSource, "json",
    "Redis Streams, in a consumer group; needs `pip install siemrelay[redis]`", extra=EXTRA,
)  # fmt: skip
