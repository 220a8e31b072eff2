"""Files of records that a person shows to a command: plain or gzip, a file or a pipe."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from itertools import chain
from typing import BinaryIO, Final, cast

import click

from siemrelay.core.lines import records_of
from siemrelay.sources.contract import Records
from siemrelay.sources.framing import RecordStream
from siemrelay.wire.framing.contract import Framing

_READ_BYTES: Final = 64 << 10

# A gzip file begins so (RFC 1952, 2.3.1); no record does.
_GZIP: Final = b"\x1f\x8b"


def contents(records: BinaryIO) -> Iterator[bytes]:
    """The bytes of a file that may be gzip; of a damaged one, those before the damage."""
    # A pipe cannot be rewound, so the first bytes are peeked at.
    content = io.BufferedReader(cast("io.RawIOBase", records))
    try:
        if not content.peek(len(_GZIP)).startswith(_GZIP):
            yield from iter(lambda: content.read1(_READ_BYTES), b"")
            return
        expanded = gzip.GzipFile(fileobj=content)
        yield from iter(lambda: expanded.read1(_READ_BYTES), b"")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        warning = f"warning: damaged gzip file, showing the records before the damage: {error}"
        click.secho(warning, err=True, fg="yellow")
    finally:
        content.detach()  # whoever opened the file closes it


def records_in(contents: Iterator[bytes], framing: Framing) -> Iterator[bytes]:
    """The records as the source finds them."""
    stream = RecordStream(framing)
    found = chain(chain.from_iterable(map(stream.feed, contents)), _last(stream))
    for some in found:
        yield from records_of(some.payload, some.count)


def _last(stream: RecordStream) -> Iterator[Records]:
    yield from stream.end()  # asked for when all others were taken
