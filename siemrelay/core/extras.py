"""Packages that only some parts need: which extra of siemrelay brings each."""

from __future__ import annotations

from importlib.util import find_spec

import msgspec


class Extra(msgspec.Struct, frozen=True):
    """An extra of siemrelay: its name, the module it brings, and what that is to a person."""

    name: str
    module: str
    what: str

    @property
    def absence(self) -> str:
        """The sentence that says that it is not there."""
        return f"{self.what} is not installed"

    @property
    def advice(self) -> str:
        """What to do then."""
        return f"install it beside the relay: pip install 'siemrelay[{self.name}]'"

    def missing(self) -> bool:
        """Whether it is not there; nothing is imported."""
        return find_spec(self.module) is None


KAFKA = Extra("kafka", "confluent_kafka", "Kafka's client")
REDIS = Extra("redis", "redis", "the Redis client")
AMQP = Extra("amqp", "pika", "the AMQP client")
