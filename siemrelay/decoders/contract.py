"""The contract of a decoder: a batch of records in, events out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, Protocol, runtime_checkable

import msgspec
from pydantic import AfterValidator, Field

from siemrelay.core.event import Batch, DecodedBatch
from siemrelay.core.options import Duration, Options
from siemrelay.decoders.times import zone_of
from siemrelay.wire.framing.contract import Framing

MAX_TIME_PAST_S: Final = 3650 * 86400.0
MAX_TIME_AHEAD_S: Final = 86400.0


class Decoder(Protocol):
    """Decodes the batches of one source. Keeps what it learns of them; one task at a time."""

    def decode(self, batch: Batch) -> DecodedBatch:
        """Exactly one event per record, in order; never raises for what is in the records."""


@runtime_checkable
class ReadsSyslog(Protocol):
    """A decoder whose records are syslog messages with their headers."""

    reads_syslog: Literal[True]


class NoOptions(Options):
    """Nothing to set."""


class TimeBoundOptions(Options):
    """Settings of every decoder that takes an event's time from the record."""

    max_time_past: Duration = Field(
        MAX_TIME_PAST_S, ge=0,
        description="the furthest that the time in a record may lie before its arrival. Beyond it "
        "the event gets the syslog header's time or that of its arrival, and the original is kept "
        "as `attributes.time`",
    )  # fmt: skip
    max_time_ahead: Duration = Field(
        MAX_TIME_AHEAD_S, ge=0,
        description="the same for a time that lies after the arrival",
    )  # fmt: skip


def _known(name: str) -> str:
    zone_of(name)
    return name


class ZonedOptions(TimeBoundOptions):
    """Settings of every decoder whose records may write times without a zone."""

    timezone: Annotated[str, AfterValidator(_known)] = Field(
        "UTC",
        description="the time zone of times that name none (RFC 3164; `rt`, `devTime`; CSV; "
        "JSON), as the devices write them: a name like Europe/Berlin, or an offset like +02:00",
    )


class DecoderKind(msgspec.Struct, frozen=True):
    """How records are read.

    `build` takes spellings, the fields wanted and the catalogue, and `options` by their names.
    `framing` takes the options and `max_record_size`, and says where such records are in a file;
    without it each line is one, or as many as `multiline` puts together. `why` says of a record
    that it cannot parse what is wrong with it, in words of the decoder's own.
    """

    options: type[Options]
    build: Callable[..., Decoder]
    summary: str
    framing: Callable[[Any, int], Framing] | None = None
    why: Callable[[bytes], str] = lambda record: "it has another form"
