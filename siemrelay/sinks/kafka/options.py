"""What a Kafka sink may set, and librdkafka's properties for it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from siemrelay.core.options import Duration, Options, Secret
from siemrelay.formats.contract import Format
from siemrelay.formats.envelopes.keyed import Keyed
from siemrelay.net.tls_client import TlsOptions
from siemrelay.sinks.contract import BatchLimits

# Batches that wait for their acknowledgement: because of lingering and a cluster's round trip, a
# busy feed needs more than a stream does.
_IN_FLIGHT_BATCHES: Final = 16

# What librdkafka may hold in memory: the batches in flight, with room for large events.
_QUEUE_KIB: Final = 64 * 1024

# librdkafka logs critical messages only: the relay reports every error itself.
_LOG_LEVEL: Final = 2

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

_PROMISED: Final = frozenset({
    "acks", "request.required.acks", "enable.idempotence", "message.timeout.ms",
    "delivery.timeout.ms", "max.in.flight", "max.in.flight.requests.per.connection",
    "message.send.max.retries", "retries", "transactional.id", "delivery.report.only.error",
})  # fmt: skip
"""Properties on which the relay's guarantees depend."""


def _brokers(value: Any) -> Any:
    # As clients of Kafka are given them elsewhere: `a:9092,b:9092`.
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return value


class KafkaOptions(Options):
    """Options of `protocol: kafka`."""

    brokers: Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_brokers)] = (
        Field(min_length=1, description="HOST:PORT of some brokers; the others are found by them")
    )
    topic: str = Field(
        min_length=1, max_length=249, pattern=r"^[A-Za-z0-9._-]+$", description="the topic"
    )
    key: Literal["source", "actor", "none"] = Field(
        "source",
        description="what keeps its order: the events of one source, those of one actor, or "
        "nothing (spread over the partitions); a compacted topic would keep one event per key",
    )
    security_protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = Field(
        "plaintext", description="as the brokers' listener has it"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI", "OAUTHBEARER"] = (
        Field("PLAIN", description="with sasl_plaintext and sasl_ssl; the last two need `client`")
    )
    username: str | None = Field(None, min_length=1, description="for PLAIN and SCRAM")
    password: Secret | None = Field(None, description="for PLAIN and SCRAM")
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
    timeout: Duration = Field(30.0, gt=0, description="how long the brokers may take nothing")
    client: dict[str, str | bool | int | float] = Field(
        default_factory=dict,
        description="further properties of librdkafka (`message.max.bytes: 4000000`)",
    )

    @field_validator("client")
    @classmethod
    def _not_ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if name in _RESERVED:
                raise ValueError(f"{name} is set by the sink's `{_RESERVED[name]}`")
            if name in _PROMISED:
                raise ValueError(f"{name} cannot be set: the relay's guarantees depend on it")
        return {
            name: Secret(v) if isinstance(v, str) and _SECRET.search(name) else v
            for name, v in value.items()
        }

    @model_validator(mode="after")
    def _credentials_are_whole(self) -> KafkaOptions:
        given = self.username is not None, self.password is not None
        if self.security_protocol.startswith("sasl_"):
            if self.sasl_mechanism not in ("GSSAPI", "OAUTHBEARER") and not all(given):
                raise ValueError(f"{self.sasl_mechanism} needs `username` and `password`")
        elif any(given):
            raise ValueError(
                "`username` and `password` need `security_protocol: sasl_ssl` (or sasl_plaintext)"
            )
        if not self.secured and self.tls != TlsOptions():
            raise ValueError("`tls` needs `security_protocol: ssl` or `sasl_ssl`")
        if self.tls.server_name is not None:
            raise ValueError("Kafka verifies each broker by its own name: leave out `server_name`")
        return self

    @property
    def secured(self) -> bool:
        """Whether the connections are within TLS."""
        return self.security_protocol.endswith("ssl")

    def limits(self) -> BatchLimits:
        """The limits of a batch."""
        return BatchLimits(in_flight_batches=_IN_FLIGHT_BATCHES)

    def properties(self) -> dict[str, str | int | float]:
        """librdkafka's properties."""
        found: dict[str, Any] = {
            "client.id": "siemrelay", "log_level": _LOG_LEVEL,
            "queue.buffering.max.kbytes": _QUEUE_KIB,
            **{k: _text(v) for k, v in self.client.items()},
            "bootstrap.servers": ",".join(self.brokers),
            "security.protocol": self.security_protocol,
            "compression.type": self.compression,
            "linger.ms": self.linger * 1000,
            "acks": "all", "enable.idempotence": "true",
            # No message expires before those behind it: when brokers take nothing for `timeout`,
            # the session ends, and every message without a report is sent again in order.
            "message.timeout.ms": 0,
        }  # fmt: skip
        if self.security_protocol.startswith("sasl_"):
            found |= {"sasl.mechanism": self.sasl_mechanism}
            if self.username is not None and self.password is not None:
                found |= {"sasl.username": self.username, "sasl.password": str(self.password)}
        if self.secured:
            tls = self.tls
            found["enable.ssl.certificate.verification"] = _text(tls.verify)
            for name, file in (
                ("ssl.ca.location", tls.ca),
                ("ssl.certificate.location", tls.certificate),
                ("ssl.key.location", tls.key or tls.certificate),
            ):
                if file is not None:
                    found[name] = str(file)
        return found


def keyed_messages(inner: Format, options: KafkaOptions) -> Format:
    """Any format's messages with the key that the options name."""
    return inner if options.key == "none" else Keyed(inner, options.key)


def _text(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value
