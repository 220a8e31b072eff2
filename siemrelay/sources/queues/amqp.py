"""The AMQP 0-9-1 source (RabbitMQ): consumes one queue and acknowledges after the fsync."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

import trio
from pydantic import AfterValidator, Field, model_validator

from siemrelay.core.extras import AMQP as EXTRA
from siemrelay.core.options import NonEmpty, Secret, formerly, with_good_port
from siemrelay.net.tls_client import TlsOptions, client_context
from siemrelay.net.tls_files import TlsFilesUnusable
from siemrelay.sources.contract import Intake, SourceKind
from siemrelay.sources.queues.window import AcknowledgingOptions, QueueFailed, Window

# One read waits so long for messages; acknowledgements and a stop wait for it.
_LOOK_S: Final = 0.05

# A broker that is silent for so long is dead; both sides send a heartbeat in half of it.
_HEARTBEAT_S: Final = 30
_BLOCKED_S: Final = 60.0

# `prefetch` bounds the number of messages, this their size. Above it the connection is read only as
# often as its heartbeat needs, some 128 KiB each time.
_HELD_BYTES: Final = 64 << 20
_BEAT_S: Final = _HEARTBEAT_S / 3


def _amqp_url(value: str) -> Secret:
    parts = with_good_port(urlsplit(value))
    if parts.scheme not in ("amqp", "amqps") or not parts.hostname:
        raise ValueError("write amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps:// for TLS")
    return Secret(value)


class AmqpOptions(AcknowledgingOptions):
    """Options of `type: amqp`."""

    url: Annotated[Secret, AfterValidator(_amqp_url)] = Field(
        description="amqp://USER:PASSWORD@HOST:PORT/VHOST (%2F is the vhost `/`); amqps:// is "
        "within TLS, verified"
    )
    queue: NonEmpty = Field(description="the queue that is consumed; several relays may share it")
    declare: bool = Field(False, description="create a durable queue if there is none")
    queue_type: Literal["classic", "quorum"] = Field(
        "classic", description="with `declare`: the kind of queue that is created"
    )
    prefetch: Annotated[int, Field(ge=1, le=65_535)] = Field(
        2000,
        description="the most messages that are read and not yet acknowledged, which a kill may "
        "repeat",
    )
    tls: TlsOptions = Field(
        default_factory=TlsOptions,
        description="with amqps://: verification, certificates",
        json_schema_extra=formerly("ca"),
    )

    @model_validator(mode="after")
    def _tls_is_used(self) -> Self:
        if "tls" in self.model_fields_set and not self.url.startswith("amqps:"):
            raise ValueError("`tls` needs a `url` that begins with amqps://")
        return self


class AmqpSource:
    """Every message of the queue that the broker delivers to this relay."""

    def __init__(self, name: str, options: AmqpOptions) -> None:
        self.name, self._options = name, options

    async def run(self, intake: Intake, *, drain: bool) -> None:
        """Consume for ever; with `drain`, until the queue is empty. See `Source`.

        Raises QueueFailed. If cancelled, unacknowledged messages go back to the queue.
        """
        consuming = _Consuming(self._options, intake)
        await consuming.window.run(partial(consuming.read, drain=drain), consuming.close)


class _Consuming:
    """One connection. The client is not thread-safe: one thread at a time uses it."""

    def __init__(self, options: AmqpOptions, intake: Intake) -> None:
        self._options, self._intake = options, intake
        self._using = trio.Lock()
        self._connection: Any = None
        self._channel: Any = None
        self._arrived_messages: list[tuple[int, bytes]] = []
        self.window: Window[int] = Window(
            intake, self._acknowledge, delivered=options.acknowledge == "delivered",
            max_records=options.prefetch, max_bytes=_HELD_BYTES,
        )  # fmt: skip

    async def read(self, *, drain: bool) -> None:
        """Hand over messages. The broker sends at most `prefetch` of them ahead."""
        await self._call(self._open)
        while True:
            with trio.move_on_after(_BEAT_S):
                await self.window.room()
            if self.window.size_bytes > 2 * _HELD_BYTES:
                raise QueueFailed(
                    "nothing could be stored for a long time: the messages held return to the queue"
                )
            come: list[tuple[int, bytes]] = await self._call(self._look)
            self._intake.progress()
            if come:
                # A tag acknowledges all before it, too.
                self.window.hand_over([body for _, body in come], come[-1][0])
            elif drain and not await self._call(self._waiting):
                return

    def close(self) -> None:
        """Close the connection. Blocks until the broker has answered."""
        import pika.exceptions

        if self._connection is not None and self._connection.is_open:
            try:
                self._connection.close()
            except (pika.exceptions.AMQPError, OSError):
                return  # it is closed, if not in order

    # -- in a thread ------------------------------------------------------

    def _open(self) -> None:
        import pika

        options = self._options
        parameters = pika.URLParameters(str(options.url))
        parameters.heartbeat = _HEARTBEAT_S
        parameters.blocked_connection_timeout = _BLOCKED_S
        if options.url.startswith("amqps"):
            name = options.tls.server_name or parameters.host
            parameters.ssl_options = pika.SSLOptions(client_context(options.tls), name)
        self._connection = pika.BlockingConnection(parameters)
        self._channel = self._connection.channel()
        if options.declare:
            self._channel.queue_declare(
                options.queue, durable=True, arguments={"x-queue-type": options.queue_type}
            )
        self._channel.basic_qos(prefetch_count=options.prefetch)
        self._channel.basic_consume(options.queue, self._arrived)

    def _arrived(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self._arrived_messages.append((method.delivery_tag, body))

    def _look(self) -> list[tuple[int, bytes]]:
        self._connection.process_data_events(time_limit=_LOOK_S)
        if not self._channel.is_open:
            raise ConnectionError("the broker closed the channel")
        if not self._channel.consumer_tags:
            # A basic.cancel by the broker; connection and channel stay open.
            raise QueueFailed(
                f"the broker ended the consumer: was the queue {self._options.queue} deleted?"
            )
        come, self._arrived_messages = self._arrived_messages, []
        return come

    def _waiting(self) -> int:
        found = self._channel.queue_declare(self._options.queue, passive=True)
        return int(found.method.message_count) + len(self._arrived_messages)

    # -- ------------------------------------------------------------------

    async def _acknowledge(self, tags: list[int]) -> None:
        await self._call(partial(self._channel.basic_ack, tags[-1], multiple=True))

    async def _call(self, call: Any) -> Any:
        try:
            import pika.exceptions
        except ImportError as error:
            raise QueueFailed(EXTRA.absence, advice=EXTRA.advice) from error
        wrong = pika.exceptions
        try:
            async with self._using:
                return await self.window.in_thread(call)
        except (wrong.ProbableAuthenticationError, wrong.AuthenticationError) as error:
            raise QueueFailed(
                "the broker refused the user or the password", advice="correct them in `url`"
            ) from error
        except (wrong.ProbableAccessDeniedError, wrong.ConnectionClosedByBroker) as error:
            raise QueueFailed(
                f"the broker closed the connection: {error}",
                advice="check the vhost in `url` and what the user may do there",
            ) from error
        except TlsFilesUnusable as error:
            raise QueueFailed(error.reason, advice=error.advice) from error
        except wrong.ChannelClosedByBroker as error:
            raise QueueFailed(
                f"the broker closed the channel: {error.reply_code} {error.reply_text}",
                advice="create the queue, set `declare: yes`, or correct the user's permissions",
            ) from error
        except (wrong.AMQPError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise QueueFailed(f"AMQP: {reason}; is the broker running there?") from error


AMQP: Final = SourceKind(
    AmqpOptions, AmqpSource, "json",
    "an AMQP 0-9-1 queue (RabbitMQ); needs `pip install siemrelay[amqp]`", extra=EXTRA,
)  # fmt: skip
