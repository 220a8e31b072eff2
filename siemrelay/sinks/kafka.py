"""Kafka out: an idempotent producer that waits for all in-sync replicas (an extra).

librdkafka sends in threads of its own and retries by itself, in order and without duplicates, as
long as a session lasts. Here runs are handed to it and its delivery reports are collected.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from siemrelay.errors import DeliveryError, RunRefused, SinkHolds, SinkWaits
from siemrelay.formats.keyed import KeyedMessage
from siemrelay.options import show_seconds
from siemrelay.sinks.contract import Refusal, Report, Settlement, no_report
from siemrelay.sinks.kafka_options import KafkaOptions
from siemrelay.sinks.kafka_verdict import verdict
from siemrelay.sinks.stream_session import weightiest

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, Producer

# How long a wait for reports lasts while there are some to come: a stop is held up by so much.
_POLL_S: Final = 0.1

# How often what librdkafka has to say is heard while nothing is on its way.
_IDLE_POLL_S: Final = 1.0

# One question for metadata; a stop in between leaves its thread behind for so long.
_METADATA_S: Final = 5.0

# How long a topic that is created by asking for it may be unknown.
_CREATION_S: Final = 5.0
_ASK_AGAIN_S: Final = 0.2

# What librdkafka may take to let go of its connections, before a thread is left to wait for it.
_CLOSE_S: Final = 2.0

_UNBORN: Final = ("UNKNOWN_TOPIC_OR_PART", "LEADER_NOT_AVAILABLE")


class KafkaSink:
    """Runs of messages produced to one topic."""

    def __init__(self, options: KafkaOptions) -> None:
        self._options = options

    @asynccontextmanager
    async def session(self, report: Report = no_report) -> AsyncIterator[KafkaSession]:
        """See `sinks.contract.Sink`."""
        session = KafkaSession(self._options, report)
        await trio.to_thread.run_sync(session.open)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.collect)
                await session.find_topic()
                yield session
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            # The collector and a waiting caller fail of the same: one reason is enough.
            found, rest = group.split(DeliveryError)
            if rest is not None:
                raise rest from None
            assert found is not None
            raise weightiest(found) from group
        finally:
            await session.close()


class Ticket:
    """One run on its way. `reported` and `failures` belong to the thread that collects."""

    def __init__(self, messages: Sequence[bytes], *, alone: bool) -> None:
        self.messages, self.alone = messages, alone
        self.refused: list[Refusal] = []
        self.reported = 0
        self.failures: list[KafkaError] = []
        self.last: Message | None = None

    @property
    def settled(self) -> bool:
        return self.reported + len(self.refused) == len(self.messages)


class KafkaSession:
    """See `sinks.contract.Session`; one producer's life."""

    def __init__(self, options: KafkaOptions, report: Report) -> None:
        self._options, self._topic, self._report = options, options.topic, report
        # In a list, to be let go of in a thread: its end may take as long as a connection's.
        self._producer: list[Producer] = []
        self._handed = self._reported = 0
        self._progress, self._work = trio.Event(), trio.Event()
        self._handing = trio.Lock()
        self._alone_sends = 0
        self._connected = False
        self._fault: DeliveryError | None = None
        self._said = ""

    # -- its life ---------------------------------------------------------

    def open(self) -> None:
        """Make the producer, which connects by itself. Blocks. Raises SinkHolds."""
        try:
            import confluent_kafka as client  # an extra, and slow to load
        except ImportError as error:
            raise SinkHolds(
                f"Kafka's client is not installed: {error}",
                advice="install it beside the relay: pip install 'siemrelay[kafka]'",
            ) from error
        properties: dict[str, Any] = {**self._options.properties(), "error_cb": self._heard}
        try:
            self._producer.append(client.Producer(properties))
        except client.KafkaException as error:
            found = error.args[0]
            raise SinkHolds(
                f"librdkafka does not accept the settings: {found.str()}",
                advice="check `client` and the files of `tls`",
            ) from error

    async def find_topic(self) -> None:
        """Wait until a broker has told of the topic. Raises SinkWaits or SinkHolds."""
        from confluent_kafka import KafkaException

        producer, name = self._producer[0], self._topic
        started = trio.current_time()
        while True:
            ask = partial(producer.list_topics, name, timeout=_METADATA_S)
            waited_s = trio.current_time() - started
            try:
                found = await trio.to_thread.run_sync(ask, abandon_on_cancel=True)
            except KafkaException as exception:
                if waited_s > self._options.timeout:
                    raise self._silent() from exception
            else:
                error = found.topics[name].error
                if error is None:
                    break
                if error.name() not in _UNBORN or waited_s > _CREATION_S:
                    raise verdict(error.name(), f"topic {name}: {error.str()}")
            await trio.sleep(_ASK_AGAIN_S)
        self._connected = True
        brokers = ", ".join(f"{b.host}:{b.port}" for b in found.brokers.values())
        partitions = len(found.topics[name].partitions)
        self._report("connect", f"brokers: {brokers}; topic {name}, partitions: {partitions}")
        if self._options.secured:
            verified = "verified" if self._options.tls.verify else "not verified"
            self._report("tls", f"by librdkafka; the brokers' certificates are {verified}")

    async def collect(self) -> None:
        """Hear what librdkafka reports. Never returns; raises what ends the session."""
        (producer,) = self._producer
        while True:
            before = self._reported
            busy = self._handed > before or not self._connected
            await trio.to_thread.run_sync(producer.poll, _POLL_S if busy else 0)
            if self._fault is not None:
                raise self._fault
            if self._reported > before:
                self._progress.set()
                self._progress = trio.Event()
            elif not busy and self._handed == self._reported:
                with trio.move_on_after(_IDLE_POLL_S):
                    await self._work.wait()

    async def close(self) -> None:
        """Give up what is on its way and let go of the producer, in a bounded time."""
        with trio.move_on_after(_CLOSE_S, shield=True):
            await trio.to_thread.run_sync(_let_go, self._producer, abandon_on_cancel=True)

    # -- sending ----------------------------------------------------------

    async def send(self, messages: Sequence[bytes]) -> Ticket:
        return await self._hand_over(messages, alone=self._alone_sends > 0)

    async def _hand_over(self, messages: Sequence[bytes], *, alone: bool) -> Ticket:
        async with self._handing:
            if alone:
                # A broker refuses a batch as a whole: this one may hold no other run's messages.
                self._alone_sends -= 1
                await self._until(lambda: self._handed == self._reported)
            ticket = Ticket(messages, alone=alone)
            at = 0
            while at < len(messages):
                at = await trio.to_thread.run_sync(self._produce, ticket, at)
                self._work.set()
                self._work = trio.Event()
                if at < len(messages):
                    await self._until(partial(self._reported_since, self._reported))
        self._report("send", f"{sum(map(len, messages))} bytes, messages: {len(messages)}")
        return ticket

    def _produce(self, ticket: Ticket, at: int) -> int:
        """Hand over messages from `at` on until librdkafka has no room; where that was. Blocks."""
        from confluent_kafka import KafkaException

        (producer,) = self._producer
        for index in range(at, len(ticket.messages)):
            message = ticket.messages[index]
            key = message.key if isinstance(message, KeyedMessage) else None
            try:
                producer.produce(
                    self._topic, message, key, on_delivery=partial(self._delivered, ticket)
                )
            except BufferError:
                return index
            except KafkaException as exception:
                error: KafkaError = exception.args[0]
                found = verdict(error.name(), error.str())
                if not isinstance(found, RunRefused):
                    raise found from exception
                ticket.refused.append(Refusal(index, found.code, found.reason))
            else:
                self._handed += 1
        return len(ticket.messages)

    async def confirm(self, ticket: Ticket) -> Settlement:
        await self._until(lambda: ticket.settled)
        found = [verdict(error.name(), error.str()) for error in ticket.failures]
        refused = [error for error in found if isinstance(error, RunRefused)]
        others = [error for error in found if not isinstance(error, RunRefused)]
        if others:
            raise weightiest(ExceptionGroup("reports", others))
        if refused:
            if len(ticket.messages) == 1 and not ticket.alone:
                self._alone_sends += 1
                again = await self._hand_over(ticket.messages, alone=True)
                return await self.confirm(again)
            # The pieces of a run are never more than twice its messages.
            self._alone_sends = 2 * len(ticket.messages)
            raise refused[0]
        if ticket.last is not None:
            partition, offset = ticket.last.partition(), ticket.last.offset()
            self._report("answer", f"all in-sync replicas have it: partition {partition}, "
                         f"offset {offset}")  # fmt: skip
        return ticket.refused

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for reports until `condition` holds. Raises SinkWaits when none comes."""
        while not condition():
            with trio.move_on_after(self._options.timeout) as scope:
                await self._progress.wait()
            if scope.cancelled_caught and not condition():
                raise self._silent()

    def _reported_since(self, before: int) -> bool:
        return self._reported > before

    # -- called by librdkafka, in the thread that collects ------------------

    def _delivered(self, ticket: Ticket, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            ticket.failures.append(error)
        ticket.last = message
        ticket.reported += 1
        self._reported += 1

    def _heard(self, error: KafkaError) -> None:
        found = verdict(error.name(), error.str())
        if isinstance(found, SinkHolds) or error.fatal():
            self._fault = found
        elif error.name() != "_ALL_BROKERS_DOWN":
            self._said = error.str()
        elif not self._connected:
            # Once connected, librdkafka may try for `timeout`: it alone avoids duplicates.
            self._fault = self._silent()

    def _silent(self) -> SinkWaits:
        brokers = ", ".join(self._options.brokers)
        if not self._connected:
            said = f" ({self._said})" if self._said else ""
            return SinkWaits(
                f"no broker of {brokers} answers{said}; check `brokers` and `security_protocol`"
            )
        said = f"; last heard: {self._said}" if self._said else ""
        timeout = show_seconds(self._options.timeout)
        return SinkWaits(f"the brokers have confirmed nothing for {timeout}{said}")


def _let_go(producer: list[Producer]) -> None:
    if producer:
        last = producer.pop()
        last.purge(blocking=False)
        last.flush(_CLOSE_S / 2)
