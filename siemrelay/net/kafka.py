"""Connections to Kafka by librdkafka: the options and properties that sources and sinks share."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from siemrelay.core.options import NonEmpty, Options, Secret
from siemrelay.net.tls_client import ClientTlsOptions

Properties = dict[str, str | int | float]
"""librdkafka's configuration properties by name."""

# librdkafka logs critical messages only: the relay reports every error itself.
_LOG_LEVEL: Final = 2


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


CommaSeparated = BeforeValidator(_split, json_schema_input_type=str | list[str])
"""Lets a list be written as other clients of Kafka take it: `a:9092,b:9092`."""


class KafkaConnectionOptions(Options):
    """Options about reaching the brokers."""

    brokers: Annotated[list[NonEmpty], CommaSeparated, Field(min_length=1)] = Field(
        description="HOST:PORT of some brokers; the others are found by them"
    )
    security_protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = Field(
        "plaintext", description="as configured on the brokers' listener"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI", "OAUTHBEARER"] = (
        Field("PLAIN", description="with sasl_plaintext and sasl_ssl")
    )
    username: str | None = Field(None, min_length=1, description="for PLAIN and SCRAM")
    password: Secret | None = Field(None, description="for PLAIN and SCRAM")
    tls: ClientTlsOptions = Field(
        default_factory=ClientTlsOptions,
        description="verification, certificates (with ssl and sasl_ssl); read when connecting",
    )

    @model_validator(mode="after")
    def _credentials_are_whole(self) -> Self:
        given = self.username is not None, self.password is not None
        if self.security_protocol.startswith("sasl_"):
            if self.sasl_mechanism not in ("GSSAPI", "OAUTHBEARER") and not all(given):
                raise ValueError(f"{self.sasl_mechanism} needs `username` and `password`")
        elif any(given):
            raise ValueError(
                "`username` and `password` need `security_protocol: sasl_ssl` (or sasl_plaintext)"
            )
        if not self.secured and self.tls != type(self.tls)():
            raise ValueError("`tls` needs `security_protocol: ssl` or `sasl_ssl`")
        return self

    @property
    def secured(self) -> bool:
        """Whether the connections are within TLS."""
        return self.security_protocol.endswith("ssl")

    def connection_properties(self) -> Properties:
        """The properties for these options. Secrets are among them."""
        found: Properties = {
            "client.id": "siemrelay", "log_level": _LOG_LEVEL,
            "bootstrap.servers": ",".join(self.brokers),
            "security.protocol": self.security_protocol,
        }  # fmt: skip
        if self.security_protocol.startswith("sasl_"):
            found["sasl.mechanism"] = self.sasl_mechanism
            if self.username is not None and self.password is not None:
                found |= {"sasl.username": self.username, "sasl.password": str(self.password)}
        if self.secured:
            tls = self.tls
            found["enable.ssl.certificate.verification"] = "true" if tls.verify else "false"
            files = {
                "ssl.ca.location": tls.ca, "ssl.certificate.location": tls.certificate,
                "ssl.key.location": tls.key or tls.certificate,
            }  # fmt: skip
            found |= {name: str(file) for name, file in files.items() if file is not None}
        return found
