"""librdkafka's producer: made, connected, listened to, and let go of in a bounded time.

It works in threads of its own; what it has to say is heard in one thread, by `collect`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from siemrelay.core.errors import DeliveryError, SinkHolds, SinkWaits
from siemrelay.core.extras import KAFKA as EXTRA
from siemrelay.core.options import show_seconds
from siemrelay.sinks.contract import Report
from siemrelay.sinks.kafka.options import KafkaOptions
from siemrelay.sinks.kafka.verdict import verdict

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


class KafkaClient:
    """One producer's life. `handed` and `reported` count messages."""

    def __init__(self, options: KafkaOptions, report: Report) -> None:
        self._options, self._topic, self._report = options, options.topic, report
        # In a list, to be let go of in a thread: its end may take as long as a connection's.
        self._producer: list[Producer] = []
        self.handed = self.reported = 0
        self._progress, self._work = trio.Event(), trio.Event()
        self._connected = False
        self._fault: DeliveryError | None = None
        self._said = ""

    def open(self) -> None:
        """Make the producer, which connects by itself. Blocks. Raises SinkHolds."""
        try:
            import confluent_kafka as client  # an extra, and slow to load
        except ImportError as error:
            raise SinkHolds(f"{EXTRA.absence}: {error}", advice=EXTRA.advice) from error
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
            before = self.reported
            busy = self.handed > before or not self._connected
            await trio.to_thread.run_sync(producer.poll, _POLL_S if busy else 0)
            if self._fault is not None:
                raise self._fault
            if self.reported > before:
                self._progress.set()
                self._progress = trio.Event()
            elif not busy and self.handed == self.reported:
                with trio.move_on_after(_IDLE_POLL_S):
                    await self._work.wait()

    async def close(self) -> None:
        """Give up what is on its way and let go of the producer, in a bounded time."""
        with trio.move_on_after(_CLOSE_S, shield=True):
            await trio.to_thread.run_sync(_let_go, self._producer, abandon_on_cancel=True)

    # -- messages ---------------------------------------------------------

    def produce(
        self, message: bytes, key: bytes | None, done: Callable[[KafkaError | None, Message], None]
    ) -> None:
        """Hand over one message; `done` is called by `collect`'s thread.

        Raises BufferError when there is no room, KafkaException for what is refused at once.
        """

        def count(error: KafkaError | None, message: Message) -> None:
            done(error, message)
            self.reported += 1

        self._producer[0].produce(self._topic, message, key, on_delivery=count)
        self.handed += 1

    def was_handed(self) -> None:
        """Let `collect` know that there are reports to come."""
        self._work.set()
        self._work = trio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for reports until `condition` holds. Raises SinkWaits when none comes."""
        while not condition():
            with trio.move_on_after(self._options.timeout) as scope:
                await self._progress.wait()
            if scope.cancelled_caught and not condition():
                raise self._silent()

    def has_room(self, before: int) -> bool:
        """Whether anything was reported since that count; nothing more comes when all was."""
        return self.reported > before or self.reported == self.handed

    def _heard(self, error: KafkaError) -> None:
        found = verdict(error.name(), error.str())
        if isinstance(self._fault, SinkHolds):
            return  # the reason for whatever else it has to say
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
            tls = f"{'speak' if self._options.secured else 'expect'} TLS there"
            return SinkWaits(
                f"no broker of {brokers} answers{said}; check `brokers`, and whether they {tls} "
                "(`security_protocol`)"
            )
        said = f"; last heard: {self._said}" if self._said else ""
        timeout = show_seconds(self._options.timeout)
        return SinkWaits(f"the brokers have confirmed nothing for {timeout}{said}")


def _let_go(producer: list[Producer]) -> None:
    if producer:
        last = producer.pop()
        last.purge(blocking=False)
        last.flush(_CLOSE_S / 2)
