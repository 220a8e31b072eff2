"""librdkafka's producer: created, connected, polled and closed within bounds; and its errors.

The library sends in threads of its own. `collect` receives its delivery reports, in one thread at a
time. librdkafka's errors become the relay's own here, by their names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import trio

from siemrelay.core.errors import BatchRefused, DeliveryError, SinkHolds, SinkWaits
from siemrelay.core.extras import KAFKA as EXTRA
from siemrelay.core.options import show_seconds
from siemrelay.net.tasks import Broadcast
from siemrelay.net.tcp_client import Address
from siemrelay.net.tls_client import TlsContexts, known_alert
from siemrelay.sinks.contract import Report, no_report
from siemrelay.sinks.kafka.options import KafkaOptions
from siemrelay.sinks.stream.connection import connect

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, Producer

# One wait for delivery reports; a stop waits for it.
_POLL_S: Final = 0.1

# How often librdkafka is polled while no message is in flight.
_IDLE_POLL_S: Final = 1.0

# One request for metadata; after a stop, a thread lives on for so long at most.
_METADATA_S: Final = 5.0

# How long a topic may be unknown that brokers create when it is asked for.
_CREATION_S: Final = 5.0
_ASK_AGAIN_S: Final = 0.2

# How long librdkafka may take to close, before that is left to a thread.
_CLOSE_S: Final = 2.0

_NOT_CREATED_YET: Final = ("UNKNOWN_TOPIC_OR_PART", "LEADER_NOT_AVAILABLE")


class KafkaClient:
    """One producer. `produced` counts the messages given to it, `reported` the delivery reports."""

    def __init__(self, options: KafkaOptions, report: Report) -> None:
        self._options, self._topic, self._report = options, options.topic, report
        # In a list, so that a thread can drop the last reference: that closes the connections, and
        # may take seconds. No frame of a coroutine has the producer: the traceback of a Cancelled
        # would keep it open until the garbage collector runs; checked by
        # test_cancelled_at_any_await_a_session_leaves_nothing_open_and_confirms_nothing_false.
        self._producer: list[Producer] = []
        self.produced = self.reported = 0
        self._progress, self._work = Broadcast(), Broadcast()
        self._connected = False
        self._fault: DeliveryError | None = None
        self._last_error = ""

    def open(self) -> None:
        """Create the producer, which connects by itself. Blocks. Raises SinkHolds."""
        try:
            import confluent_kafka as client  # an extra, and slow to load
        except ImportError as error:
            raise SinkHolds(f"{EXTRA.absence}: {error}", advice=EXTRA.advice) from error
        properties: dict[str, Any] = {**self._options.properties(), "error_cb": self._on_error}
        try:
            self._producer.append(client.Producer(properties))
        except client.KafkaException as error:
            found = error.args[0]
            raise SinkHolds(
                f"librdkafka does not accept the settings: {found.str()}",
                advice="check `client` and the files of `tls`",
            ) from error

    async def find_topic(self) -> None:
        """Wait until a broker knows the topic. Raises SinkWaits or SinkHolds."""
        from confluent_kafka import KafkaException

        name, started = self._topic, trio.current_time()
        while True:
            waited_s = trio.current_time() - started
            try:
                found = await trio.to_thread.run_sync(self._metadata, abandon_on_cancel=True)
            except KafkaException as exception:
                if waited_s > self._options.timeout:
                    raise self._no_answer() from exception
            else:
                error = found.topics[name].error
                if error is None:
                    break
                if error.name() not in _NOT_CREATED_YET or waited_s > _CREATION_S:
                    raise delivery_error(error.name(), f"topic {name}: {error.str()}")
            await trio.sleep(_ASK_AGAIN_S)
        self._connected = True
        brokers = ", ".join(f"{b.host}:{b.port}" for b in found.brokers.values())
        partitions = len(found.topics[name].partitions)
        self._report("connect", f"brokers: {brokers}; topic {name}, partitions: {partitions}")
        if self._options.secured:
            verified = "verified" if self._options.tls.verify else "not verified"
            self._report("tls", f"by librdkafka; the brokers' certificates are {verified}")

    async def collect(self) -> None:
        """Receive librdkafka's reports. Never returns; raises what ends the session."""
        while True:
            before = self.reported
            busy = self.produced > before or not self._connected
            await trio.to_thread.run_sync(self._poll, _POLL_S if busy else 0)
            if self._fault is not None:
                raise self._fault
            if self.reported > before:
                self._progress.wake_all()
            elif not busy and self.produced == self.reported:
                with trio.move_on_after(_IDLE_POLL_S):
                    await self._work.wait()

    def _metadata(self) -> Any:
        return self._producer[0].list_topics(self._topic, timeout=_METADATA_S)

    def _poll(self, timeout_s: float) -> None:
        self._producer[0].poll(timeout_s)

    async def close(self) -> None:
        """Drop unsent messages and close the producer; two seconds at the most.

        A producer that takes longer is left to a thread.
        """
        with trio.move_on_after(_CLOSE_S, shield=True):
            await trio.to_thread.run_sync(_close, self._producer, abandon_on_cancel=True)

    # -- messages ---------------------------------------------------------

    def produce(
        self, message: bytes, key: bytes | None, done: Callable[[KafkaError | None, Message], None]
    ) -> None:
        """Give one message to librdkafka; the thread of `collect` calls `done` with its report.

        Raises BufferError when its queue is full, KafkaException if it refuses the message.
        """

        def count(error: KafkaError | None, message: Message) -> None:
            done(error, message)
            self.reported += 1

        self._producer[0].produce(self._topic, message, key, on_delivery=count)
        self.produced += 1

    def expect_reports(self) -> None:
        """Wake `collect`, after messages were produced."""
        self._work.wake_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for reports until `condition` holds. Raises SinkWaits when none comes."""
        while not condition():
            with trio.move_on_after(self._options.timeout) as scope:
                await self._progress.wait()
            if scope.cancelled_caught and not condition():
                raise self._no_answer()

    def has_room(self, before: int) -> bool:
        """Whether there were reports since that count, or there are none to come."""
        return self.reported > before or self.reported == self.produced

    def _on_error(self, error: KafkaError) -> None:
        found = delivery_error(error.name(), error.str())
        if isinstance(self._fault, SinkHolds):
            return  # later errors only follow from it
        if isinstance(found, SinkHolds) or error.fatal():
            self._fault = found
        elif error.name() != "_ALL_BROKERS_DOWN":
            self._last_error = error.str()
        elif not self._connected:
            # Once connected, librdkafka retries for `timeout`: only it can avoid duplicates.
            self._fault = self._no_answer()

    def _no_answer(self) -> SinkWaits:
        brokers = ", ".join(self._options.brokers)
        if not self._connected:
            why = f" ({self._last_error})" if self._last_error else ""
            tls = f"{'speak' if self._options.secured else 'expect'} TLS there"
            return SinkWaits(
                f"no broker of {brokers} answers{why}; check `brokers`, and whether they {tls} "
                "(`security_protocol`)"
            )
        why = f"; last error: {self._last_error}" if self._last_error else ""
        timeout = show_seconds(self._options.timeout)
        return SinkWaits(f"the brokers have confirmed nothing for {timeout}{why}")


def _close(producer: list[Producer]) -> None:
    if producer:
        last = producer.pop()
        last.purge(blocking=False)
        last.flush(_CLOSE_S / 2)


# -- what an error means -----------------------------------------------------

_CREDENTIALS: Final = (
    "check `username`, `password`, `sasl_mechanism` and `security_protocol` against the listener's"
)
_TOPIC: Final = "create the topic, or check `topic`"
_WRITE: Final = "allow the relay's user to write to the topic and to describe it"

_HOLDS: Final = {
    "_AUTHENTICATION": _CREDENTIALS,
    "SASL_AUTHENTICATION_FAILED": _CREDENTIALS,
    "UNSUPPORTED_SASL_MECHANISM": _CREDENTIALS,
    "ILLEGAL_SASL_STATE": _CREDENTIALS,
    "_UNSUPPORTED_FEATURE": _CREDENTIALS,
    "_UNKNOWN_TOPIC": _TOPIC,
    "UNKNOWN_TOPIC_OR_PART": _TOPIC,
    "TOPIC_EXCEPTION": _TOPIC,
    "TOPIC_AUTHORIZATION_FAILED": _WRITE,
    "CLUSTER_AUTHORIZATION_FAILED": "allow the relay's user IdempotentWrite on the cluster",
    "POLICY_VIOLATION": "the topic's policy refuses the messages: ask who runs the brokers",
    "INVALID_CONFIG": "the topic's settings refuse the messages: ask who runs the brokers",
    "UNSUPPORTED_FOR_MESSAGE_FORMAT": "the topic keeps a format older than Kafka 0.11: renew it",
    "UNSUPPORTED_VERSION": "the brokers are older than Kafka 0.11, or this is no Kafka port",
    "UNSUPPORTED_COMPRESSION_TYPE": "choose another `compression`: the brokers do not know this",
    "_INVALID_ARG": "check `client`",
}
"""Errors that only a person can fix, with what to change."""

_REFUSED: Final = frozenset({
    "MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_RECORD", "INVALID_MSG",
    "INVALID_TIMESTAMP", "_BAD_MSG",
})  # fmt: skip
"""Errors about messages. A broker reports them for a whole batch of its own."""


# `…: error:0A00045C:SSL routines::tlsv13 alert certificate required: SSL alert number 116 (…`
_OPENSSL: Final = re.compile(r"SSL routines:\w*:([^:(]+ alert [^:(]+)")


def delivery_error(name: str, message: str) -> DeliveryError:
    """The error to raise for librdkafka's error of that name (`MSG_SIZE_TOO_LARGE`) and message."""
    if name in _REFUSED:
        return BatchRefused(code=name, reason=message)
    # A refusal in TLS 1.3 comes after the handshake, as the end of a connection.
    reason = _OPENSSL.search(message)
    alert = reason and known_alert(reason[1].strip().replace(" ", "_").upper())
    if alert:
        return SinkHolds(f"{alert[0]} ({message})", advice=alert[1])
    # By chance the same refusal has one of two names: TLS's or the connection's.
    if name == "_SSL" or "certificate verify failed" in message:
        return SinkHolds(message, advice=_tls_advice(message))
    if name in _HOLDS:
        return SinkHolds(message, advice=_HOLDS[name])
    return SinkWaits(message)


def _tls_advice(message: str) -> str:
    if "PLAINTEXT" in message or "wrong version number" in message:
        return "the brokers speak no TLS on that port: check `brokers` and `security_protocol`"
    if "expired" in message:
        return "renew the certificate, and check the clocks of both machines"
    if "verify failed" in message or "self-signed" in message or "self signed" in message:
        return "set `tls: {ca: FILE}` to the authority that signed the brokers' certificates"
    if "ostname" in message:
        return "name in `brokers` what is in the brokers' certificates (and advertise it there)"
    return "check `tls`: its files must be PEM, readable, and trusted by the brokers"


# `ssl://HOST:PORT/bootstrap: SSL handshake failed: …`, `sasl_ssl://[::1]:9093/3: …`
_BROKER: Final = re.compile(r"(?:sasl_)?ssl://\[?([^/\]]+)\]?:(\d+)/.*verif", re.IGNORECASE)


async def with_tls_reason(held: SinkHolds, options: KafkaOptions) -> DeliveryError:
    """The same fault; if a broker's certificate is not accepted, with the reason why.

    librdkafka has one message for expired, foreign and differently named certificates, and each is
    fixed elsewhere: so Python's TLS connects to that broker again.
    """
    found = _BROKER.match(held.reason)
    if found is None:
        return held
    broker = Address(found[1], int(found[2]))
    try:
        opened = await connect(broker, options.timeout, no_report, TlsContexts(options.tls))
    except SinkHolds as again:
        return SinkHolds(f"broker {broker}: {again.reason}", advice=again.advice)
    except SinkWaits:
        return held  # it answered a moment ago, with this
    await opened.aclose()
    return held
