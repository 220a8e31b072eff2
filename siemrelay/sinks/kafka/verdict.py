"""What librdkafka's errors mean for a run of messages, by their names."""

from __future__ import annotations

import re
from typing import Final

from siemrelay.core.errors import BatchRefused, DeliveryError, SinkHolds, SinkWaits
from siemrelay.net.tls_client import told_by_alert

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
"""What only a person can mend, with what to change."""

_REFUSED: Final = frozenset({
    "MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_RECORD", "INVALID_MSG",
    "INVALID_TIMESTAMP", "_BAD_MSG",
})  # fmt: skip
"""What is about messages. A broker says it of a whole batch."""


# `…: error:0A00045C:SSL routines::tlsv13 alert certificate required: SSL alert number 116 (…`
_OPENSSL: Final = re.compile(r"SSL routines:\w*:([^:(]+ alert [^:(]+)")


def verdict(name: str, words: str) -> DeliveryError:
    """The error to raise for an error of librdkafka's with that name and text."""
    if name in _REFUSED:
        return BatchRefused(code=name, reason=words)
    # A refusal in TLS 1.3 comes after the handshake, as the end of a connection.
    reason = _OPENSSL.search(words)
    told = reason and told_by_alert(reason[1].strip().replace(" ", "_").upper())
    if told:
        return SinkHolds(f"{told[0]} ({words})", advice=told[1])
    # The same refusal comes by one of two names, as chance has it: as TLS's or the connection's.
    if name == "_SSL" or "certificate verify failed" in words:
        return SinkHolds(words, advice=_tls_advice(words))
    if name in _HOLDS:
        return SinkHolds(words, advice=_HOLDS[name])
    return SinkWaits(words)


def _tls_advice(words: str) -> str:
    if "PLAINTEXT" in words or "wrong version number" in words:
        return "the brokers speak no TLS on that port: check `brokers` and `security_protocol`"
    if "expired" in words:
        return "renew the certificate, and check the clocks of both machines"
    if "verify failed" in words or "self-signed" in words or "self signed" in words:
        return "set `tls: {ca: FILE}` to the authority that signed the brokers' certificates"
    if "ostname" in words:
        return "name in `brokers` what is in the brokers' certificates (and advertise it there)"
    return "check `tls`: its files must be PEM, readable, and trusted by the brokers"
