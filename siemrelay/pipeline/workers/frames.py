"""The protocol between relay and workers: a length, and a message in MessagePack.

The relay sends tables (what to format with), then batches. The worker answers each message with
one, in order.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from siemrelay.core.event import Batch
from siemrelay.formats.envelopes.keyed import keys_of, with_keys
from siemrelay.pipeline.formatting.messages import FormattedBatch

_LENGTH: Final = struct.Struct("<Q")
HEADER_BYTES: Final = _LENGTH.size


class Tables(msgspec.Struct, tag=True, array_like=True):
    """A pickled function that makes a `Formatter`; what follows is formatted with that."""

    pickled: bytes
    gc_threshold: int


class Job(msgspec.Struct, tag=True, array_like=True):
    """A batch, and the filters (by number) of each group that are wanted."""

    batch: Batch
    wanted: dict[int, list[int]]


class Ready(msgspec.Struct, tag=True, array_like=True):
    """The tables can be used."""


class Done(msgspec.Struct, tag=True, array_like=True):
    """The messages of a batch; `keys` has, by group, those of its messages that have one."""

    formatted: FormattedBatch
    keys: dict[int, list[bytes | None]]


_encoder: Final = msgspec.msgpack.Encoder()
_question: Final = msgspec.msgpack.Decoder(Tables | Job)
_answer: Final = msgspec.msgpack.Decoder(Ready | Done)


def frame(message: Tables | Job | Ready | Done) -> bytearray:
    """The message with its length in front."""
    data = bytearray(HEADER_BYTES)
    _encoder.encode_into(message, data, HEADER_BYTES)
    _LENGTH.pack_into(data, 0, len(data) - HEADER_BYTES)
    return data


def length_of(header: bytes | bytearray | memoryview) -> int:
    """The length of the message behind that header."""
    length: int = _LENGTH.unpack(header)[0]
    return length


def question(body: bytes | bytearray | memoryview) -> Tables | Job:
    """A message from the relay."""
    message: Tables | Job = _question.decode(body)
    return message


def answer(body: bytes | bytearray | memoryview) -> Ready | Done:
    """A message from a worker."""
    message: Ready | Done = _answer.decode(body)
    if isinstance(message, Done):
        for group, keys in message.keys.items():
            made = message.formatted.groups[group]
            made.messages = list(with_keys(made.messages, keys))
    return message


def done(formatted: FormattedBatch) -> Done:
    """The answer with a formatted batch; its messages become plain bytes, its columns lists."""
    message = Done(formatted, {})
    for group, made in formatted.groups.items():
        made.messages, made.sequences = list(made.messages), list(made.sequences)
        if (keys := keys_of(made.messages)) is not None:
            message.keys[group] = keys
            made.messages = list(map(bytes, made.messages))
    return message
