"""The Kafka source: topics, read in a consumer group; offsets are committed after the fsync."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Final, Literal

import trio
from pydantic import Field

from siemrelay.core.extras import KAFKA as EXTRA
from siemrelay.core.options import NonEmpty
from siemrelay.net.kafka import CommaSeparated, KafkaConnectionOptions, Properties
from siemrelay.sources.contract import Intake, SourceKind
from siemrelay.sources.queues.window import QueueFailed, Window, WindowOptions

# One read waits at most so long for messages; a stop waits for it.
_LOOK_S: Final = 0.2

# The pause before a commit is tried again during a rebalance; reading goes on meanwhile.
_AGAIN_S: Final = 0.2

# With `--drain`: without a partition for so long, other members of the group have all of them.
_NO_PARTITION_S: Final = 30.0

Partition = tuple[str, int]
Offsets = dict[Partition, int]
"""Topic and number → the offset after the last record handed over."""

_REFUSED: Final = frozenset({
    "_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "TOPIC_AUTHORIZATION_FAILED",
    "GROUP_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED",
})  # fmt: skip
_UNKNOWN: Final = frozenset({"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION"})

# The memory in which librdkafka may fetch ahead.
_QUEUE_KIB: Final = 32 * 1024

# Brokers allow 6 s to 30 min by default. A relay that hangs is ended by systemd's watchdog.
_SESSION_MS: Final = 10_000

_Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]


class KafkaSourceOptions(WindowOptions, KafkaConnectionOptions):
    """Options of `type: kafka`."""

    topic: Annotated[list[_Topic], CommaSeparated, Field(min_length=1)] = Field(
        description="the topic, or a list of topics"
    )
    group: NonEmpty = Field(
        "siemrelay", description="the consumer group; relays in it share the work"
    )
    start_at: Literal["beginning", "end"] = Field(
        "beginning", description="where a group that has read nothing yet starts"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="with sasl_plaintext and sasl_ssl"
    )

    def properties(self) -> Properties:
        """librdkafka's properties for the consumer."""
        return {
            **self.connection_properties(), "group.id": self.group,
            # Only this relay commits, after the records are safe.
            "enable.auto.commit": False, "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest" if self.start_at == "beginning" else "latest",
            "enable.partition.eof": True, "queued.max.messages.kbytes": _QUEUE_KIB,
            "fetch.wait.max.ms": 100,
            # When a member joins or leaves, the others keep their partitions.
            "partition.assignment.strategy": "cooperative-sticky",
            # How soon the partitions of a dead relay are assigned to others.
            "session.timeout.ms": _SESSION_MS, "heartbeat.interval.ms": _SESSION_MS // 4,
        }  # fmt: skip


class KafkaSource:
    """Every record of the partitions that the group assigns to this relay.

    Records without a value (tombstones) are skipped.
    """

    def __init__(self, name: str, options: KafkaSourceOptions) -> None:
        self.name, self._options = name, options

    async def run(self, intake: Intake, *, drain: bool) -> None:
        """Consume for ever; with `drain`, until every partition was read to its end. See `Source`.

        Raises QueueFailed. If cancelled, what was not committed is read again, here or elsewhere.
        """
        consuming = _Consuming(self._options, intake)
        await consuming.window.run(partial(consuming.read, drain=drain), consuming.close)


class _Consuming:
    def __init__(self, options: KafkaSourceOptions, intake: Intake) -> None:
        self._options, self._intake = options, intake
        self._consumer: Any = None
        self._last_error: Any = None
        self._at_end: set[Partition] = set()
        self._passed: Offsets = {}
        self._paused = False
        self.window: Window[Offsets] = Window(
            intake, self._commit, delivered=options.acknowledge == "delivered",
            max_records=options.in_flight, max_bytes=options.in_flight_size,
        )  # fmt: skip

    def close(self) -> None:
        """Leave the group, so that the others take over at once. Blocks."""
        # No reference is left: a closed consumer keeps a descriptor until it is freed.
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()

    async def read(self, *, drain: bool) -> None:
        """Hand over records. While the window is full, partitions are paused, not given up."""
        await self.window.in_thread(self._open)
        started = trio.current_time()
        while True:
            if self.window.full is not self._paused:
                await self.window.in_thread(self._pause, self.window.full)
            records = await self.window.in_thread(self._look)
            self._intake.progress()
            if records:
                self.window.hand_over(records, self._passed)
                self._passed = {}
            elif drain:
                alone = not self._at_end and trio.current_time() - started > _NO_PARTITION_S
                if alone or await self.window.in_thread(self._is_at_end):
                    return

    # -- in a thread ------------------------------------------------------

    def _open(self) -> None:
        try:
            import confluent_kafka as client  # an extra, and slow to load
        except ImportError as error:
            raise QueueFailed(f"{EXTRA.absence}: {error}", advice=EXTRA.advice) from error
        try:
            properties: dict[str, Any] = {**self._options.properties(), "error_cb": self._on_error}
            self._consumer = client.Consumer(properties)
        except client.KafkaException as error:
            raise QueueFailed(
                f"librdkafka does not accept the settings: {error.args[0].str()}",
                advice="check the files of `tls`",
            ) from error
        self._consumer.subscribe(
            self._options.topic, on_assign=self._assigned, on_revoke=self._revoked
        )

    def _on_error(self, error: Any) -> None:
        self._last_error = error

    def _assigned(self, consumer: Any, partitions: list[Any]) -> None:
        self._paused = False  # the new ones are not

    def _revoked(self, consumer: Any, partitions: list[Any]) -> None:
        self._at_end -= {(each.topic, each.partition) for each in partitions}

    def _pause(self, paused: bool) -> None:
        change = self._consumer.pause if paused else self._consumer.resume
        change(self._consumer.assignment())
        self._paused = paused

    def _look(self) -> list[bytes]:
        records = []
        for message in self._consumer.consume(self._options.batch, _LOOK_S):
            place = message.topic(), message.partition()
            error = message.error()
            if error is not None:
                if error.name() != "_PARTITION_EOF":
                    raise _failed(error)
                self._at_end.add(place)
                continue
            self._at_end.discard(place)
            self._passed[place] = message.offset() + 1
            value = message.value()
            if value is not None:
                records.append(value)
        if self._last_error is not None and self._last_error.name() in _REFUSED:
            raise _failed(self._last_error)
        return records

    def _is_at_end(self) -> bool:
        assigned = {(each.topic, each.partition) for each in self._consumer.assignment()}
        return bool(assigned) and assigned <= self._at_end

    def _commit_now(self, offsets: Offsets) -> bool:
        """Commit the offsets of partitions that are still ours; False to try again."""
        import confluent_kafka as client

        mine = {(each.topic, each.partition) for each in self._consumer.assignment()}
        # The new owner of a revoked partition reads from the last commit.
        places = [
            client.TopicPartition(topic, number, offset)
            for (topic, number), offset in offsets.items()
            if (topic, number) in mine
        ]
        if not places:
            return True
        try:
            self._consumer.commit(offsets=places, asynchronous=False)
        except client.KafkaException as error:
            found = error.args[0]
            if not found.retriable() and found.name() not in _REBALANCING:
                raise _failed(found) from error
            return False
        return True

    # -- ------------------------------------------------------------------

    async def _commit(self, batches: list[Offsets]) -> None:
        offsets: Offsets = {}
        for batch in batches:
            offsets |= batch
        while True:
            if await self.window.in_thread(self._commit_now, offsets):
                return
            await trio.sleep(_AGAIN_S)


# The group rebalances, or its coordinator does not answer.
_REBALANCING: Final = frozenset({
    "REBALANCE_IN_PROGRESS", "ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID", "_ASSIGNMENT_LOST",
    "_WAIT_COORD", "_TIMED_OUT", "_TRANSPORT",
})  # fmt: skip


def _failed(error: Any) -> QueueFailed:
    name, message = error.name(), error.str()
    if name in _REFUSED:
        advice = "check `security_protocol`, `username` and `password`, and what the user may read"
    elif name in _UNKNOWN:
        advice = "create the topic, or correct its name in `topic`"
    else:
        advice = "are the brokers running there?"
    return QueueFailed(f"Kafka: {message}", advice=advice)


KAFKA: Final = SourceKind(
    KafkaSourceOptions, KafkaSource, "json",
    "Kafka topics, in a consumer group; needs `pip install siemrelay[kafka]`", extra=EXTRA,
    reads_tls_once=True,
)  # fmt: skip
