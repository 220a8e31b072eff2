"""The contract of framings: where the records are in the bytes of a file or a stream.

A framing looks at the bytes behind a position and finds the records that are complete. What it
leaves is shown to it again with what follows, so it keeps nothing of it: after a crash the same
bytes are read again from the stored position, and give the same records.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Final, Protocol

import msgspec

from siemrelay.core.lines import payloads, records_of

# The largest record that is kept in one piece: the whole path (payload, decoding, formatting)
# holds several copies of a record, and 16 MiB keeps that within the memory of a small server.
# No audit event known to us comes near it; what is longer is split, never dropped.
MAX_WHOLE_BYTES: Final = 16 << 20

Ahead = tuple[tuple[int, int], ...]
"""Stretches behind a position whose records were taken before those at the position: where each
begins and ends, counted from it; rising, apart."""


class Rest(IntEnum):
    """The bytes that may follow those that a splitter is shown."""

    OPEN = 0
    """Anything, at any time."""
    QUIET = 1
    """Nothing was written for `wait_s`: a record that may go on is complete, a line is not."""
    FINAL = 2
    """Nothing: whatever is left is a record."""


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """`count` records in `payload`, each ended by LF, which may be none; then those of `apart`."""

    payload: bytes
    count: int
    part: int | None = None
    """The number, from 1, of this piece of a record over 16 MiB; None for whole records."""
    oversize: tuple[int, ...] = ()
    """The sizes in bytes, without the line feed, of the records over the limit."""
    consumed: bytes = b""
    """The input that the records and what lies between them took: reading goes on behind it."""
    ahead: Ahead = ()
    """Stretches taken behind `consumed`, to be passed with the next bytes."""
    apart: tuple[tuple[bytes, int], ...] = ()
    """More payloads with their counts, in order (`core.lines.payloads`)."""


class Splitter(Protocol):
    """Finds the records of one content."""

    @property
    def wait_s(self) -> float | None:
        """How long nothing must be written until it is asked with `Rest.QUIET`; None: never."""

    def split(self, data: bytes, rest: Rest, ahead: Ahead = ()) -> Chunk | None:
        """The complete records with which `data` begins; None if there is nothing to take yet.

        `data` begins where the last chunk's `consumed` ended. With `Rest.FINAL` all of it is taken,
        perhaps in several calls. The records do not depend on how much is shown at a time (checked
        for every framing by test_records_do_not_depend_on_where_reading_stops).
        """


class Framing(Protocol):
    """How records are found in the bytes of a source."""

    @property
    def max_record_bytes(self) -> int:
        """Longer records are reported as oversize, and kept."""

    @property
    def begin_bytes(self) -> int:
        """How much of a content's beginning a splitter is made from."""

    @property
    def by_first_line(self) -> bool:
        """Whether a beginning with one whole line is enough, however short it is."""

    def splitter(self, begin: bytes, *, at_start: bool) -> Splitter:
        """The splitter of a content that begins so, with `begin_bytes` or all that there is.

        Reading may start at any position that was stored. `at_start`: it starts at the very
        beginning; such a splitter is made anew for each read, as long as nothing was taken.
        """


def chunk_of(records: Iterable[bytes], consumed: bytes, ahead: Ahead = ()) -> Chunk:
    """A chunk of records with any bytes inside, without the line feeds that end them.

    Blank ones are left out. `oversize` is left to the reader.
    """
    records = [record for record in records if record not in (b"", b"\r")]
    found = [(payload, len(some)) for payload, some in payloads(records)]
    (payload, count), *apart = found or [(b"", 0)]
    return Chunk(payload, count, None, (), consumed, ahead, tuple(apart))


def with_oversize(chunk: Chunk, max_record_bytes: int) -> Chunk:
    """The chunk with the sizes of its records over the limit."""
    found = ((chunk.payload, chunk.count), *chunk.apart)
    if all(len(payload) - 1 <= max_record_bytes for payload, _ in found):
        return chunk
    sizes = [
        len(record) for payload, count in found if count for record in records_of(payload, count)
    ]
    oversize = tuple(size for size in sizes if size > max_record_bytes)
    return msgspec.structs.replace(chunk, oversize=oversize)
