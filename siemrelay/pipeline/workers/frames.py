"""The protocol between relay and workers: a header, a message in MessagePack, and its data.

The relay sends tables (what to format with), then batches. The worker answers each message with
one, in order. Data, the payload of a batch or the messages made of it, are large: they lie in
memory that both share, or follow in the pipe where they do not fit there.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from siemrelay.core.event import Batch
from siemrelay.core.lines import RecordLines, count_lines
from siemrelay.formats.envelopes.keyed import keys_of, with_keys
from siemrelay.pipeline.formatting.messages import FormattedBatch

_HEADER: Final = struct.Struct("<QQb")
HEADER_BYTES: Final = _HEADER.size
NO_SLOT: Final = -1


class FrameHeader(NamedTuple):
    """The sizes of what follows, the message and its data.

    The data lie in the shared memory, in this slot; they follow in the pipe if it is `NO_SLOT`.
    """

    message_bytes: int
    data_bytes: int = 0
    slot: int = NO_SLOT


class Tables(msgspec.Struct, tag=True, array_like=True):
    """A pickled function that makes a `Formatter`; what follows is formatted with that."""

    pickled: bytes
    gc_threshold: int


class Job(msgspec.Struct, tag=True, array_like=True):
    """A batch, and the filters (by number) of each group that are wanted.

    `slot` is the one of the shared memory that is kept for it and its answer.
    """

    batch: Batch
    wanted: dict[int, list[int]]
    slot: int = NO_SLOT


class Ready(msgspec.Struct, tag=True, array_like=True):
    """The tables can be used."""


class Done(msgspec.Struct, tag=True, array_like=True):
    """The messages of a batch; `keys` has, by group, those of its messages that have one.

    `lines` has, by group, how many bytes of the data its messages are, and how many lines: there
    they are instead of in `formatted`. `waited_s` is for how long the worker had nothing to do
    before it.
    """

    formatted: FormattedBatch
    keys: dict[int, list[bytes | None]]
    lines: dict[int, tuple[int, int]]
    waited_s: float = 0.0


_encoder: Final = msgspec.msgpack.Encoder()
_question: Final = msgspec.msgpack.Decoder(Tables | Job)
_answer: Final = msgspec.msgpack.Decoder(Ready | Done)


def frame(
    message: Tables | Job | Ready | Done, data: Sequence[bytes] = (), slot: int = NO_SLOT
) -> bytearray:
    """The message with its header in front; `data` lie in the slot or are sent behind it."""
    framed = bytearray(HEADER_BYTES)
    _encoder.encode_into(message, framed, HEADER_BYTES)
    size = sum(map(len, data))
    _HEADER.pack_into(framed, 0, *FrameHeader(len(framed) - HEADER_BYTES, size, slot))
    return framed


def header_of(data: bytes | bytearray | memoryview) -> FrameHeader:
    """The header that these bytes are."""
    return FrameHeader(*_HEADER.unpack(data))


def asked(job: Job, slot: int) -> tuple[Job, list[bytes]]:
    """The job without its payload, and that."""
    batch = msgspec.structs.replace(job.batch, payload=b"")
    return Job(batch, job.wanted, slot), [job.batch.payload]


def question(body: bytes | bytearray | memoryview, data: bytes) -> Tables | Job:
    """A message from the relay."""
    message: Tables | Job = _question.decode(body)
    if isinstance(message, Job):
        message.batch = msgspec.structs.replace(message.batch, payload=data)
    return message


def answered(formatted: FormattedBatch) -> tuple[Done, list[bytes]]:
    """The answer with a formatted batch, and its data; its columns become lists."""
    message, data = Done(formatted, {}, {}), list[bytes]()
    for group, made in formatted.groups.items():
        made.sequences = list(made.sequences)
        if (keys := keys_of(made.messages)) is not None:
            message.keys[group] = keys
        count, lines = len(made.messages), _lines(made.messages)
        if lines is None:
            made.messages = list(map(bytes, made.messages))
        else:
            message.lines[group] = len(lines), count
            data.append(lines)
            made.messages = ()
    return message, data


def answer(body: bytes | bytearray | memoryview, data: bytes) -> Ready | Done:
    """A message from a worker. Raises msgspec.MsgspecError if it makes no sense."""
    message: Ready | Done = _answer.decode(body)
    if isinstance(message, Done):
        groups, start = message.formatted.groups, 0
        for group, (size, count) in message.lines.items():
            groups[group].messages = RecordLines(data[start : start + size], count)
            start += size
        if start != len(data):
            raise msgspec.ValidationError(f"{len(data)} bytes of data instead of {start}")
        for group, keys in message.keys.items():
            groups[group].messages = list(with_keys(groups[group].messages, keys))
    return message


def _lines(messages: Sequence[bytes]) -> bytes | None:
    """The messages as lines; None if one has a line feed inside."""
    if type(messages) is RecordLines:
        return messages.payload
    lines = b"\n".join([*messages, b""])
    return lines if count_lines(lines) == len(messages) else None
