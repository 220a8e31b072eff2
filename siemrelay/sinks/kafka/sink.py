"""The Kafka sink: an idempotent producer that waits for all in-sync replicas (an extra).

During a session librdkafka sends in threads of its own and retries by itself, in order and without
duplicates. This module produces batches and collects the delivery reports.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from siemrelay.core.errors import BatchRefused, SinkHolds, most_lasting_error
from siemrelay.core.extras import KAFKA as EXTRA
from siemrelay.formats.envelopes.keyed import KeyedMessage, keyed_messages
from siemrelay.net.tasks import beside
from siemrelay.sinks.contract import ProtocolKind, Refusal, Report, Settlement, no_report
from siemrelay.sinks.kafka.client import KafkaClient, delivery_error, with_tls_reason
from siemrelay.sinks.kafka.options import KafkaOptions

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message


class KafkaSink:
    """Batches of messages produced to one topic."""

    def __init__(self, options: KafkaOptions) -> None:
        self._options = options

    @asynccontextmanager
    async def session(self, report: Report = no_report) -> AsyncIterator[KafkaSession]:
        """See `sinks.contract.Sink`."""
        client = KafkaClient(self._options, report)
        await trio.to_thread.run_sync(client.open)
        try:
            async with beside(client.collect):
                await client.find_topic()
                yield KafkaSession(client, report)
        except SinkHolds as held:
            raise await with_tls_reason(held, self._options) from held
        finally:
            await client.close()


class ProducedBatch:
    """One batch in flight. Only the thread that collects writes `reported` and `failures`."""

    def __init__(self, messages: Sequence[bytes], *, alone: bool) -> None:
        self.messages, self.alone = messages, alone
        self.refused: list[Refusal] = []
        self.reported = 0
        self.failures: list[KafkaError] = []
        self.last: Message | None = None

    @property
    def settled(self) -> bool:
        """Whether every message was reported or refused."""
        return self.reported + len(self.refused) == len(self.messages)

    def take(self, error: KafkaError | None, message: Message) -> None:
        """Note the report about one message."""
        if error is not None:
            self.failures.append(error)
        self.last = message
        self.reported += 1


class KafkaSession:
    """See `sinks.contract.Session`; a session is one producer."""

    def __init__(self, client: KafkaClient, report: Report) -> None:
        self._client, self._report = client, report
        self._handing = trio.Lock()
        # How many of the next sends must not share a broker's batch with other messages.
        self._alone_sends = 0

    async def send(self, messages: Sequence[bytes]) -> ProducedBatch:
        """See `sinks.contract.Session`; returns once librdkafka has every message in its queue."""
        return await self._hand_over(messages, alone=self._alone_sends > 0)

    async def _hand_over(self, messages: Sequence[bytes], *, alone: bool) -> ProducedBatch:
        client = self._client
        async with self._handing:
            if alone:
                # A broker refuses its batch as a whole: this one may hold no other messages.
                self._alone_sends -= 1
                await client.until(lambda: client.produced == client.reported)
            ticket = ProducedBatch(messages, alone=alone)
            at = 0
            while at < len(messages):
                at = await trio.to_thread.run_sync(self._produce, ticket, at)
                client.expect_reports()
                if at < len(messages):
                    await client.until(partial(client.has_room, client.reported))
        self._report("send", f"{sum(map(len, messages))} bytes, messages: {len(messages)}")
        return ticket

    def _produce(self, ticket: ProducedBatch, at: int) -> int:
        """Hand over messages from `at` on while librdkafka has room; returns the next. Blocks."""
        from confluent_kafka import KafkaException

        for index in range(at, len(ticket.messages)):
            message = ticket.messages[index]
            key = message.key if isinstance(message, KeyedMessage) else None
            try:
                self._client.produce(message, key, ticket.take)
            except BufferError:
                return index
            except KafkaException as exception:
                error: KafkaError = exception.args[0]
                found = delivery_error(error.name(), error.str())
                if not isinstance(found, BatchRefused):
                    raise found from exception
                ticket.refused.append(Refusal(index, found.code, found.reason))
        return len(ticket.messages)

    async def confirm(self, ticket: ProducedBatch) -> Settlement:
        """See `sinks.contract.Session`; a message is sent alone before it counts as refused."""
        await self._client.until(lambda: ticket.settled)
        found = [delivery_error(error.name(), error.str()) for error in ticket.failures]
        refused = [error for error in found if isinstance(error, BatchRefused)]
        others = [error for error in found if not isinstance(error, BatchRefused)]
        if others:
            raise most_lasting_error(ExceptionGroup("reports", others))
        if refused:
            if len(ticket.messages) == 1 and not ticket.alone:
                self._alone_sends += 2  # this one, and the one that is sent behind it
                again = await self._hand_over(ticket.messages, alone=True)
                return await self.confirm(again)
            # The parts of a batch are never more than twice its messages.
            self._alone_sends = 2 * len(ticket.messages)
            raise refused[0]
        if ticket.last is not None:
            partition, offset = ticket.last.partition(), ticket.last.offset()
            self._report("answer", f"all in-sync replicas have it: partition {partition}, "
                         f"offset {offset}")  # fmt: skip
        return ticket.refused


KAFKA: Final = ProtocolKind(
    KafkaOptions, KafkaSink, "json",
    "a Kafka topic, confirmed by all in-sync replicas; needs `pip install siemrelay[kafka]`",
    limits=lambda options: options.limits(), wrap=keyed_messages, extra=EXTRA,
    reads_tls_once=True,
)  # fmt: skip
