"""A peer for every row of the sources: what the conformance suite asks of the other side.

A new source is covered by the whole suite through its row in the registry and a class here.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
import trio
from confluent_kafka import Consumer, Producer, TopicPartition

from siemrelay.core.errors import DeliveryError, most_lasting_error
from siemrelay.net.tasks import Broadcast
from siemrelay.registry import SOURCES
from siemrelay.sources.contract import Source
from siemrelay.sources.queues.kafka import KafkaSource, KafkaSourceOptions
from tests.contracts.sink_peers import PEERS as SINK_PEERS
from tests.support.daemon import event
from tests.support.polled.api import Api
from tests.support.programs import journal_files
from tests.support.programs.kafka_cluster import KafkaCluster
from tests.support.programs.rabbitmq import RabbitServer
from tests.support.programs.redis_server import RedisServer
from tests.support.receivers.splunk import TOKEN
from tests.support.servers import free_port

_ID = re.compile(rb"n\d{7}")
_TRY_AGAIN_S = 0.02

T = TypeVar("T")


class Servers:
    """Programs that take long to start: each started once for the whole suite."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self.directory = directory
        self._stack, self._started = stack, dict[type[Any], Any]()

    def get(self, kind: type[T], make: Callable[[], AbstractContextManager[T]]) -> T:
        if kind not in self._started:
            self._started[kind] = self._stack.enter_context(make())
        found: T = self._started[kind]
        return found


def number_of(record: bytes) -> int:
    """The number of the event in a record."""
    found = _ID.search(record)
    assert found is not None, record
    return int(found[0][1:])


def records(numbers: range) -> list[bytes]:
    return [json.dumps(event(number)).encode() for number in numbers]


class SourcePeer:
    """The other side of one source; use it by `open`."""

    acknowledges: ClassVar[bool] = True
    """It is told what it may forget."""
    again: ClassVar[bool] = True
    """What was not stored can be read again."""
    drains: ClassVar[bool] = True
    """`--drain` ends when everything there is has been read."""
    cancel_points: ClassVar[Iterable[int]] = range(1, 10_000)
    """Which awaits are cancelled, one in each run."""

    settings: dict[str, Any]
    """The source's options, as in a configuration file; there once it is open."""

    def __init__(self, row: str, directory: Path, servers: Servers, name: str) -> None:
        self.row, self.directory, self.servers, self.name = row, directory, servers, name
        self.produced = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Be there."""
        yield

    async def produce(self, count: int) -> None:
        """So many more records, numbered on."""
        numbers = range(self.produced, self.produced + count)
        self.produced += count
        await trio.to_thread.run_sync(self.add, numbers)

    def add(self, numbers: range) -> None:
        """Have these records; in a thread."""
        raise NotImplementedError

    def acknowledged(self) -> int:
        """How many of them it may forget; in a thread, while no source runs."""
        raise NotImplementedError

    def source(self) -> Source:
        kind = SOURCES[self.row]
        made: Source = kind.build("audit", kind.options.model_validate(self.settings))
        return made


class File(SourcePeer):
    """A log that is appended to."""

    acknowledges = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        self.settings = {"path": str(self.directory / "audit.json"), "poll": "20ms"}
        yield

    def add(self, numbers: range) -> None:
        with (self.directory / "audit.json").open("ab") as file:
            file.write(b"".join(record + b"\n" for record in records(numbers)))


class Stdin(SourcePeer):
    """A pipe cannot be read again: each one is read to its end or lost."""

    acknowledges = again = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        self.settings = {}
        kept, self._reader = sys.stdin, -1
        try:
            yield
        finally:
            if sys.stdin is not kept:
                sys.stdin.close()
            sys.stdin = kept

    def add(self, numbers: range) -> None:
        reader, writer = os.pipe()
        if self._reader >= 0:
            sys.stdin.close()
        self._reader, sys.stdin = reader, os.fdopen(reader)
        with os.fdopen(writer, "wb") as end:
            end.write(b"".join(record + b"\n" for record in records(numbers)))


class Redis(SourcePeer):
    """A real redis-server."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        make = lambda: RedisServer(self.servers.directory)  # noqa: E731  (made only if needed)
        self._server = self.servers.get(RedisServer, make)
        self.settings = {"url": self._server.url, "stream": self.name, "batch": 10}
        yield

    def add(self, numbers: range) -> None:
        self._server.add(self.name, records(numbers))

    def acknowledged(self) -> int:
        try:
            (group,) = self._server.client.xinfo_groups(self.name)
        except (ValueError, self._server.no_such_key):
            return 0
        return int(group["entries-read"] or 0) - int(group["pending"])


class _ShortSession(KafkaSourceOptions):
    """The mock cluster keeps whoever comes back to a group waiting for nearly a session."""

    def properties(self) -> dict[str, str | int | float]:
        return super().properties() | {"session.timeout.ms": 1500, "heartbeat.interval.ms": 300}


class Kafka(SourcePeer):
    """librdkafka's own mock cluster: one partition, so that there is one order.

    A cancelled relay returns to its group, which takes half a second: few awaits are cancelled.
    """

    cancel_points = (1, 5, 20)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        with KafkaCluster() as self._cluster:
            self._cluster.create("audit", 1)
            self.settings = {"brokers": self._cluster.bootstrap, "topic": "audit"}
            yield

    def source(self) -> Source:
        return KafkaSource("audit", _ShortSession.model_validate(self.settings))

    def add(self, numbers: range) -> None:
        producer = Producer({"bootstrap.servers": self._cluster.bootstrap, "log_level": 0})
        for record in records(numbers):
            producer.produce("audit", record, partition=0)
        assert producer.flush(20) == 0

    def acknowledged(self) -> int:
        consumer = Consumer({
            "bootstrap.servers": self._cluster.bootstrap, "group.id": "siemrelay", "log_level": 0
        })  # fmt: skip
        try:
            (place,) = consumer.committed([TopicPartition("audit", 0)], 10)
        finally:
            consumer.close()
        return max(place.offset, 0)


class Amqp(SourcePeer):
    """A real RabbitMQ."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        def make() -> RabbitServer:
            return RabbitServer(self.servers.directory)

        self._server = await trio.to_thread.run_sync(self.servers.get, RabbitServer, make)
        self._channel = self._server.channel()
        self._channel.queue_declare(self.name, durable=True)
        self.settings = {"url": self._server.url, "queue": self.name}
        try:
            yield
        finally:
            self._channel.connection.close()

    def add(self, numbers: range) -> None:
        for record in records(numbers):
            self._channel.basic_publish("", self.name, record)
        self._channel.queue_declare(self.name, passive=True)  # an answer: all before is there

    def acknowledged(self) -> int:
        found = self._channel.queue_declare(self.name, passive=True)
        return self.produced - int(found.method.message_count)


class Journal(SourcePeer):
    """Journal files that systemd wrote, read by its own journalctl."""

    acknowledges = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        if journal_files.MISSING:
            pytest.skip("systemd's journal programs are not installed")
        self._journal = self.directory / "journal"
        self._journal.mkdir()
        self.settings = {"directory": str(self._journal)}
        yield

    def add(self, numbers: range) -> None:
        journal_files.write_journal(self._journal, numbers, "n{:07}")


class HttpPoll(SourcePeer):
    """An API that goes on by a cursor."""

    acknowledges = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        self._items: list[Any] = []

        def answer(query: dict[str, str], headers: Any) -> tuple[int, Any, dict[str, str]]:
            at = int(query.get("cursor", 0))
            page = self._items[at : at + 10]
            return 200, {"items": page, "next": str(at + len(page))}, {}

        with Api(answer) as api:
            self.settings = {
                "url": api.url, "every": "20ms",
                "cursor": {"parameter": "cursor", "from": "next"},
            }  # fmt: skip
            yield

    def add(self, numbers: range) -> None:
        self._items += map(json.loads, records(numbers))


class _Pushed(SourcePeer):
    """A source that is sent to: by a sink of our own, again and again until it confirms."""

    drains = False
    sink_row: ClassVar[str]

    def addresses(self, port: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """The settings of the source, and of the sink that sends to it."""
        raise NotImplementedError

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        self.settings, sender = self.addresses(free_port())
        self._sender = SINK_PEERS[self.sink_row](self.sink_row, self.directory)
        self._sender.settings = sender
        self._unsent, self._more, self._confirmed = list[int](), Broadcast(), 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send)
            yield
            nursery.cancel_scope.cancel()

    async def produce(self, count: int) -> None:
        self._unsent += range(self.produced, self.produced + count)
        self.produced += count
        self._more.wake_all()
        await trio.lowlevel.checkpoint()

    def acknowledged(self) -> int:
        return self._confirmed

    async def _send(self) -> None:
        sink = self._sender.sink()
        while True:
            if not self._unsent:
                await self._more.wait()
            try:
                async with sink.session() as session:
                    while self._unsent:
                        ticket = await session.send(self._sender.messages(self._unsent[0]))
                        assert not await session.confirm(ticket)
                        del self._unsent[0]
                        self._confirmed += 1
            except DeliveryError:
                await trio.sleep(_TRY_AGAIN_S)
            except BaseExceptionGroup as group:
                most_lasting_error(group)  # raises what is no failure of the delivery, like a stop
                await trio.sleep(_TRY_AGAIN_S)


class Http(_Pushed):
    """A web hook."""

    sink_row = "http"

    def addresses(self, port: int) -> tuple[dict[str, Any], dict[str, Any]]:
        address = f"http://127.0.0.1:{port}/events"
        return {"listen": address}, {"url": address, "timeout": "1s"}


class Hec(_Pushed):
    """Splunk's HTTP Event Collector."""

    sink_row = "splunk-hec"

    def addresses(self, port: int) -> tuple[dict[str, Any], dict[str, Any]]:
        address = f"http://127.0.0.1:{port}"
        sender = {"url": address, "authorization": f"Splunk {TOKEN}", "timeout": "1s"}
        return {"listen": address, "tokens": [TOKEN]}, sender


class Syslog(_Pushed):
    """RELP: of the listeners' protocols, the one that acknowledges."""

    sink_row = "relp"

    def addresses(self, port: int) -> tuple[dict[str, Any], dict[str, Any]]:
        sender = {"server": "127.0.0.1", "port": port, "timeout": "1s"}
        return {"listen": f"relp://127.0.0.1:{port}"}, sender


PEERS: dict[str, type[SourcePeer]] = {
    "file": File, "stdin": Stdin, "redis": Redis, "kafka": Kafka, "amqp": Amqp,
    "journal": Journal, "http_poll": HttpPoll, "http": Http, "splunk-hec": Hec,
    "syslog": Syslog,
}  # fmt: skip
"""A row of the registry → its peer; a row without one fails the suite."""


def rows_where(what: str) -> list[str]:
    """The rows whose peer can do that."""
    return [row for row, peer in PEERS.items() if getattr(peer, what)]
