"""Packages that only some parts need, and the extra of siemrelay that installs each."""

from __future__ import annotations

from importlib.util import find_spec

import msgspec


class Extra(msgspec.Struct, frozen=True):
    """An extra of siemrelay: its name, the module that it installs, and a phrase for that."""

    name: str
    module: str
    what: str

    @property
    def absence(self) -> str:
        """A clause that says that it is not installed."""
        return f"{self.what} is not installed"

    @property
    def advice(self) -> str:
        """Advice: the command that installs it."""
        return f"install it beside the relay: pip install 'siemrelay[{self.name}]'"

    def missing(self) -> bool:
        """Whether it is not installed; nothing is imported."""
        return find_spec(self.module) is None


KAFKA = Extra("kafka", "confluent_kafka", "Kafka's client")
REDIS = Extra("redis", "redis", "the Redis client")
AMQP = Extra("amqp", "pika", "the AMQP client")
TIMESTAMPS = Extra("timestamps", "rfc3161_client", "the reader of time stamps (RFC 3161)")
REGEX = Extra("regex", "re2", "RE2, which matches patterns in linear time,")
