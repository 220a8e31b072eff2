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
from siemrelay.wire.compression import BEGIN_BYTES, Compression, Damaged, compression_of, expanded
from siemrelay.wire.framing.contract import Framing

_READ_BYTES: Final = 64 << 10


def contents(records: BinaryIO) -> Iterator[bytes]:
    """The bytes of a file that may be compressed; of a damaged one, those before the damage.

    Raises click.ClickException for a compression that the file source does not read, either.
    """
    # A pipe cannot be rewound, so the first bytes are peeked at.
    content = io.BufferedReader(cast("io.RawIOBase", records))
    pieces = iter(lambda: content.read1(_READ_BYTES), b"")
    try:
        compression = compression_of(content.peek(BEGIN_BYTES)[:BEGIN_BYTES], "")
        if compression is None:
            yield from pieces
        elif compression.expander is None:
            raise click.ClickException(f"cannot read {compression.name}: expand the file first")
        else:
            yield from _expanded(pieces, compression)
    finally:
        content.detach()  # whoever opened the file closes it


def _expanded(pieces: Iterator[bytes], compression: Compression) -> Iterator[bytes]:
    try:
        yield from filter(None, expanded(pieces, compression))
    except Damaged as error:
        warning = f"warning: damaged {compression.name} file, showing the records before the damage"
        click.secho(f"{warning}: {error}", err=True, fg="yellow")


def records_in(contents: Iterator[bytes], framing: Framing) -> Iterator[bytes]:
    """The records as the source finds them."""
    stream = RecordStream(framing)
    found = chain(chain.from_iterable(map(stream.feed, contents)), _last(stream))
    for some in found:
        yield from records_of(some.payload, some.count)


def _last(stream: RecordStream) -> Iterator[Records]:
    yield from stream.end()  # asked for when all others were taken
