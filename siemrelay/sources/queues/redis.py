"""The Redis source: a stream, read in a consumer group; others take over from a dead relay."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

import msgspec
import trio
from pydantic import AfterValidator, Field, model_validator

from siemrelay.core.extras import REDIS as EXTRA
from siemrelay.core.options import Duration, NonEmpty, Secret, formerly
from siemrelay.net.tls_client import ClientTlsOptions
from siemrelay.net.tls_files import no_password
from siemrelay.sources.contract import Intake, Position, Records, SourceKind
from siemrelay.sources.queues.window import QueueFailed, Window, WindowOptions

# A read waits so long for entries: a stop waits for it.
_BLOCK_MS: Final = 500

# Ids in one command about entries held already.
_IDS: Final = 1000

# While there is no room, pending entries are claimed anew at least this often.
_WAIT_S: Final = 30.0

_CONSUMER: Final = "consumer"
"""Key of a position: {"name": this relay's in the group, made up at its first start}."""

_GROUP: Final = "group"
"""Key of a position: {"name": of the group that exists, "stream": its stream}."""

# No answer within this, beyond the wait that was asked for, is none.
_ANSWER_S: Final = 10.0


def _redis_url(value: str) -> Secret:
    parts = urlsplit(value)
    if parts.scheme not in ("redis", "rediss", "unix") or not (parts.hostname or parts.path):
        raise ValueError("write redis://HOST:PORT/DATABASE, or rediss:// for TLS")
    return Secret(value)


class RedisOptions(WindowOptions):
    """Options of `type: redis`."""

    url: Annotated[Secret, AfterValidator(_redis_url)] = Field(
        description="redis://USER:PASSWORD@HOST:PORT/DATABASE; rediss:// is within TLS, verified"
    )
    stream: NonEmpty = Field(description="the stream's key; it need not exist yet")
    group: NonEmpty = Field(
        "siemrelay", description="the consumer group; made if it does not exist"
    )
    consumer: NonEmpty | None = Field(
        None,
        description="this relay's name in the group, different for each; by default one that is "
        "made up and kept in `state_dir`",
    )
    field: NonEmpty | None = Field(
        None,
        description="which field of an entry is the record; by default its only one, or all of "
        "them as a JSON object",
    )
    claim_after: Annotated[Duration, Field(ge=1)] = Field(
        60.0,
        description="entries that another relay has held for this long without a sign of life are "
        "taken over",
    )
    start_at: Literal["beginning", "end"] = Field(
        "beginning",
        description="where a group that is made here starts in the stream; one that was lost "
        "since starts at the beginning",
    )
    tls: ClientTlsOptions = Field(
        default_factory=ClientTlsOptions,
        description="with rediss://: verification, certificates",
        json_schema_extra=formerly("ca"),
    )

    @model_validator(mode="after")
    def _tls_is_used(self) -> Self:
        if "tls" in self.model_fields_set and not self.url.startswith("rediss:"):
            raise ValueError("`tls` needs a `url` that begins with rediss://")
        return self


class RedisSource:
    """Every entry of the stream that the group gives to this relay.

    An entry that was read and not acknowledged stays pending in Redis: this relay reads it again
    after a restart, or another one takes it over.
    """

    def __init__(self, name: str, options: RedisOptions) -> None:
        self.name, self._options = name, options

    async def run(self, intake: Intake, *, drain: bool) -> None:
        """Read for ever; with `drain`, until the group has nothing more for us. See `Source`.

        Raises QueueFailed.
        """
        reading = _Reading(self._options, intake, await self._consumer(intake))
        await reading.window.run(partial(reading.read, drain=drain), reading.close)

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
    """Reads by one connection; `window` holds what is not acknowledged."""

    def __init__(self, options: RedisOptions, intake: Intake, consumer: str) -> None:
        self._options, self._intake, self._consumer = options, intake, consumer
        self._redis = _client(options)
        self._claim_from = _START
        self._next_touch = 0.0
        self.window: Window[list[bytes]] = Window(
            intake, self._acknowledge, delivered=options.acknowledge == "delivered",
            max_records=options.in_flight, max_bytes=options.in_flight_size,
        )  # fmt: skip

    def close(self) -> None:
        """Close the connections."""
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
        """Wait until more may be read; pending entries stay ours however long that takes."""
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
        """Take over entries that are idle for too long, a part of the pending ones at a time.

        A part begins where the last one ended: the first ones may belong to relays that live.
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
        """Claim our own pending entries again, which resets their idle time: others leave them."""
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
        # A group that was there and is gone (a Redis that keeps nothing on disk was restarted) has
        # read nothing of what is in the stream now.
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
        with _queue_errors(self._options.stream):
            return await self.window.in_thread(call, *arguments)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")  # JSON holds texts only: each byte is shown


_START: Final = "0-0"
"""Before every id."""

_encode: Final = msgspec.json.Encoder().encode


# -- the client ----------------------------------------------------------------


def _client(options: RedisOptions) -> Any:
    """A client, which connects when it is first used. Raises QueueFailed without the package."""
    try:
        import redis  # an extra, and slow to load
    except ImportError as error:
        raise QueueFailed(EXTRA.absence, advice=EXTRA.advice) from error
    tls: dict[str, Any] = {}
    if options.url.startswith("rediss"):
        tls = {
            "ssl_ca_certs": options.tls.ca, "ssl_certfile": options.tls.certificate,
            "ssl_keyfile": options.tls.key, "ssl_password": no_password(),
            "ssl_cert_reqs": "required" if options.tls.verify else "none",
            # It is not compared by itself before redis-py 6.
            "ssl_check_hostname": options.tls.verify,
        }  # fmt: skip
    return redis.Redis.from_url(
        str(options.url), socket_timeout=_ANSWER_S, socket_connect_timeout=_ANSWER_S,
        health_check_interval=0, **tls,
    )  # fmt: skip


@contextmanager
def _queue_errors(stream: str) -> Iterator[None]:
    """Raise the client's errors as QueueFailed, with what to change."""
    import redis

    try:
        yield
    except redis.AuthenticationError as error:
        raise QueueFailed(
            f"Redis refused the password: {error}", advice="correct the user and password in `url`"
        ) from None
    except redis.exceptions.NoPermissionError as error:
        raise QueueFailed(
            f"Redis: {error}", advice="the user needs xreadgroup, xack, xautoclaim, xclaim and "
            "xgroup on this key",
        ) from None  # fmt: skip
    except redis.exceptions.ReadOnlyError as error:
        raise QueueFailed(
            f"Redis: {error}", advice="write the primary's address in `url`"
        ) from None
    except redis.ResponseError as error:
        reason = str(error)
        advice = "" if reason.startswith(_PASSING) else (
            f"is `stream: {stream}` a stream, and Redis 6.2 or newer?"
        )  # fmt: skip
        raise QueueFailed(f"Redis: {reason}", advice=advice) from None
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        raise QueueFailed(f"Redis: {error}; is it running there?") from error


_PASSING: Final = ("NOGROUP", "OOM", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN", "UNBLOCKED")
"""Errors that begin so pass by themselves, or when the source is restarted."""


REDIS: Final = SourceKind(
    RedisOptions, RedisSource, "json",
    "Redis Streams, in a consumer group; needs `pip install siemrelay[redis]`", extra=EXTRA,
)  # fmt: skip
