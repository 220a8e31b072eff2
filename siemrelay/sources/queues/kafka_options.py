"""What a Kafka source may set, and librdkafka's properties for it."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, model_validator

from siemrelay.core.options import Secret
from siemrelay.sources.queues.tls import BrokerTlsOptions
from siemrelay.sources.queues.window import WindowOptions

# What librdkafka may fetch ahead, in memory.
_QUEUE_KIB: Final = 32 * 1024

# Brokers take 6 s to 30 min by default; a stopped loop of ours is found out by its watchdog.
_SESSION_MS: Final = 10_000

# librdkafka's own log has its critical lines only: what fails is told by the relay itself.
_LOG_LEVEL: Final = 2


def _list(value: Any) -> Any:
    # As clients of Kafka are given them elsewhere: `a:9092,b:9092`.
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


_Text = Annotated[str, Field(min_length=1)]
_Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]


class KafkaSourceOptions(WindowOptions):
    """Settings of `type: kafka`."""

    brokers: Annotated[list[_Text], BeforeValidator(_list), Field(min_length=1)] = Field(
        description="HOST:PORT of some brokers; the others are found by them"
    )
    topic: Annotated[list[_Topic], BeforeValidator(_list), Field(min_length=1)] = Field(
        description="the topic, or a list of topics"
    )
    group: _Text = Field("siemrelay", description="the consumer group; relays in it share the work")
    start_at: Literal["beginning", "end"] = Field(
        "beginning", description="where a group that has read nothing yet starts"
    )
    security_protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = Field(
        "plaintext", description="as the brokers' listener has it"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="with sasl_plaintext and sasl_ssl"
    )
    username: _Text | None = Field(None, description="for sasl_plaintext and sasl_ssl")
    password: Secret | None = Field(None, description="for sasl_plaintext and sasl_ssl")
    tls: BrokerTlsOptions = Field(
        default_factory=BrokerTlsOptions,
        description="verification, certificates (ssl and sasl_ssl)",
    )

    @model_validator(mode="after")
    def _credentials_are_whole(self) -> KafkaSourceOptions:
        sasl = self.security_protocol.startswith("sasl_")
        if sasl != (self.username is not None and self.password is not None):
            raise ValueError(
                "`username` and `password` belong to `security_protocol: sasl_ssl` (or "
                "sasl_plaintext), both of them"
            )
        if not self.security_protocol.endswith("ssl") and self.tls != BrokerTlsOptions():
            raise ValueError("`tls` needs `security_protocol: ssl` or `sasl_ssl`")
        return self

    def properties(self) -> dict[str, str | int | bool]:
        """librdkafka's properties."""
        found: dict[str, str | int | bool] = {
            "client.id": "siemrelay", "log_level": _LOG_LEVEL,
            "bootstrap.servers": ",".join(self.brokers), "group.id": self.group,
            "security.protocol": self.security_protocol,
            # Offsets follow what is safe, and nothing else moves them.
            "enable.auto.commit": False, "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest" if self.start_at == "beginning" else "latest",
            "enable.partition.eof": True, "queued.max.messages.kbytes": _QUEUE_KIB,
            "fetch.wait.max.ms": 100,
            # When a member comes or goes, the others keep what they read and hold.
            "partition.assignment.strategy": "cooperative-sticky",
            # How soon the partitions of a relay that died are given to others.
            "session.timeout.ms": _SESSION_MS, "heartbeat.interval.ms": _SESSION_MS // 4,
        }  # fmt: skip
        if self.username is not None and self.password is not None:
            found |= {
                "sasl.mechanism": self.sasl_mechanism, "sasl.username": self.username,
                "sasl.password": str(self.password),
            }  # fmt: skip
        if self.security_protocol.endswith("ssl"):
            found["enable.ssl.certificate.verification"] = self.tls.verify
            for name, file in (
                ("ssl.ca.location", self.tls.ca),
                ("ssl.certificate.location", self.tls.certificate),
                ("ssl.key.location", self.tls.key or self.tls.certificate),
            ):
                if file is not None:
                    found[name] = str(file)
        return found
