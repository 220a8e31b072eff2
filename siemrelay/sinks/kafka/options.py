"""The options of a Kafka sink, and librdkafka's properties for them."""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from pydantic import Field, field_validator

from siemrelay.core.options import Duration, Secret, Timeout
from siemrelay.net.kafka import KafkaConnectionOptions, Properties
from siemrelay.net.tls_client import TlsOptions
from siemrelay.sinks.contract import BatchLimits

# Batches that wait for their acknowledgement: because of lingering and a cluster's round trip, a
# busy feed needs more than a stream does.
_IN_FLIGHT_BATCHES: Final = 16

# The memory of librdkafka: the batches in flight, with room for large events.
_QUEUE_KIB: Final = 64 * 1024

_RESERVED: Final = {
    "bootstrap.servers": "brokers", "metadata.broker.list": "brokers",
    "security.protocol": "security_protocol", "sasl.username": "username",
    "sasl.password": "password", "sasl.mechanism": "sasl_mechanism",
    "sasl.mechanisms": "sasl_mechanism", "ssl.ca.location": "tls: {ca}",
    "ssl.certificate.location": "tls: {certificate}", "ssl.key.location": "tls: {key}",
    "enable.ssl.certificate.verification": "tls: {verify}", "linger.ms": "linger",
    "queue.buffering.max.ms": "linger", "compression.type": "compression",
    "compression.codec": "compression",
}  # fmt: skip
"""Properties that have an option of their own."""

_SECRET: Final = re.compile(r"password|secret|private|oauthbearer\.config|jaas")

_GUARANTEED: Final = frozenset({
    "acks", "request.required.acks", "enable.idempotence", "message.timeout.ms",
    "delivery.timeout.ms", "max.in.flight", "max.in.flight.requests.per.connection",
    "message.send.max.retries", "retries", "transactional.id", "delivery.report.only.error",
})  # fmt: skip
"""Properties on which the relay's guarantees depend."""


class KafkaOptions(KafkaConnectionOptions):
    """Options of `protocol: kafka`."""

    topic: str = Field(
        min_length=1, max_length=249, pattern=r"^[A-Za-z0-9._-]+$", description="the topic"
    )
    key: Literal["source", "actor", "none"] = Field(
        "source",
        description="what keeps its order: the events of one source, those of one actor, or "
        "nothing (spread over the partitions); a compacted topic would keep one event per key",
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI", "OAUTHBEARER"] = (
        Field("PLAIN", description="with sasl_plaintext and sasl_ssl; the last two need `client`")
    )
    tls: TlsOptions = Field(
        default_factory=TlsOptions,
        description="verification, certificates (with ssl and sasl_ssl); read when connecting",
    )
    compression: Literal["lz4", "zstd", "gzip", "snappy", "none"] = Field(
        "lz4", description="of batches; zstd needs Kafka 2.1, Azure Event Hubs takes gzip only"
    )
    linger: Duration = Field(
        0.005, ge=0, le=60, description="how long a batch waits for more messages"
    )
    timeout: Timeout = Field(30.0, description="how long the brokers may take nothing; 5m at most")
    client: dict[str, str | bool | int | float] = Field(
        default={},
        description="further properties of librdkafka (`message.max.bytes: 4000000`)",
    )

    @field_validator("client")
    @classmethod
    def _not_reserved(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if name in _RESERVED:
                raise ValueError(f"{name} is set by the sink's `{_RESERVED[name]}`")
            if name in _GUARANTEED:
                raise ValueError(f"{name} cannot be set: the relay's guarantees depend on it")
        return {
            name: Secret(v) if isinstance(v, str) and _SECRET.search(name) else v
            for name, v in value.items()
        }

    @field_validator("tls")
    @classmethod
    def _brokers_have_names_of_their_own(cls, value: TlsOptions) -> TlsOptions:
        if value.server_name is not None:
            raise ValueError("Kafka verifies each broker by its own name: leave out `server_name`")
        return value

    def limits(self) -> BatchLimits:
        """The limits of a batch."""
        return BatchLimits(in_flight_batches=_IN_FLIGHT_BATCHES)

    def properties(self) -> Properties:
        """librdkafka's properties for the producer."""
        return {
            "queue.buffering.max.kbytes": _QUEUE_KIB,
            **{name: _text(value) for name, value in self.client.items()},
            **self.connection_properties(),
            "compression.type": self.compression, "linger.ms": self.linger * 1000,
            "acks": "all", "enable.idempotence": "true",
            # No message expires before those behind it: when brokers take nothing for `timeout`,
            # the session ends, and every message without a report is sent again in order.
            "message.timeout.ms": 0,
        }  # fmt: skip


def _text(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value
