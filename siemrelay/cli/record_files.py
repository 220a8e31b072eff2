"""Files of records that a person shows to a command: plain or compressed, a file or a pipe."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import chain
from typing import BinaryIO, Final, cast

import click

from siemrelay.core.lines import records_of
from siemrelay.sources.contract import Records
from siemrelay.sources.framing import RecordStream
from siemrelay.wire.compression import (
    BEGIN_BYTES,
    CannotExpand,
    Damaged,
    compression_of,
    expanded,
)
from siemrelay.wire.framing.contract import Framing

_READ_BYTES: Final = 64 << 10


def decompressed(file: BinaryIO, read_bytes: int = _READ_BYTES) -> Iterator[bytes]:
    """The bytes of a file that may be compressed, read in pieces of at most `read_bytes`.

    Raises Damaged behind what can be had of a damaged file, CannotExpand for a compression that the
    file source does not read, either.
    """
    # A pipe cannot be rewound, so the first bytes are peeked at.
    content = io.BufferedReader(cast("io.RawIOBase", file))
    pieces = iter(lambda: content.read1(read_bytes), b"")
    try:
        compression = compression_of(content.peek(BEGIN_BYTES)[:BEGIN_BYTES], "")
        if compression is not None:
            pieces = filter(None, expanded(pieces, compression))
        yield from pieces
    except Damaged as error:
        assert compression is not None
        raise Damaged(f"damaged {compression.name} file: {error}") from error
    finally:
        content.detach()  # the opener of the file closes it


def contents(records: BinaryIO) -> Iterator[bytes]:
    """The bytes of a file that may be compressed; of a damaged one, those before the damage.

    Raises click.ClickException for a compression that the file source does not read, either.
    """
    try:
        yield from decompressed(records)
    except CannotExpand as error:
        raise click.ClickException(f"cannot read {error}") from error
    except Damaged as error:
        click.secho(f"warning: {error}; the records before the damage are shown", err=True,
                    fg="yellow")  # fmt: skip


def records_in(contents: Iterator[bytes], framing: Framing) -> Iterator[bytes]:
    """The records as the source finds them."""
    stream = RecordStream(framing)
    found = chain(chain.from_iterable(map(stream.feed, contents)), _last(stream))
    for some in found:
        yield from records_of(some.payload, some.count)


def _last(stream: RecordStream) -> Iterator[Records]:
    yield from stream.end()  # asked for when all others were taken
