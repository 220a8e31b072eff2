"""Cuts bytes into whole records, one a line. Pure: bytes in, values out."""

from __future__ import annotations

from io import BytesIO
from typing import Annotated, Final

import msgspec
from pydantic import Field

from siemrelay.core.options import Size
from siemrelay.sources.contract import Records

# The largest record that is kept in one piece: the whole path (payload, decoding, formatting)
# holds several copies of a record, and 16 MiB keeps that within the memory of a small server.
# No audit event known to us comes near it; what is longer is split, never dropped.
MAX_WHOLE_BYTES: Final = 16 << 20

RecordSize = Annotated[Size, Field(gt=0, le=MAX_WHOLE_BYTES)]
"""The option `max_record_size`: longer records are counted as oversize, and kept."""

_BLANK: Final = (b"\n", b"\r\n")


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """`count` records in `payload`, each ended by LF, which may be none."""

    payload: bytes
    count: int
    part: int | None = None
    """The number, from 1, of this piece of a record over 16 MiB; None for whole records."""
    oversize: tuple[int, ...] = ()
    """The sizes in bytes, without the line feed, of the records over the limit."""
    consumed: bytes = b""
    """The input that the records and the blank lines between them took."""


def cut(data: bytes, max_record_bytes: int) -> Chunk | None:
    """The whole lines of `data` without the blank ones; None if not even one line ends in it."""
    end = data.rfind(b"\n") + 1
    if not end:
        return None
    whole = data[:end]
    # Measured on 1 MiB of 450-byte lines with Python 3.11: readlines 0.07 ms and each `in` 0.03,
    # against 0.35 ms for bytes.count and 0.85 for a search for two line feeds, which compare
    # byte by byte where this uses memchr.
    lines = BytesIO(whole).readlines()
    payload = whole
    if b"\n" in lines or b"\r\n" in lines:
        lines = [line for line in lines if line not in _BLANK]
        payload = b"".join(lines)
    oversize: tuple[int, ...] = ()
    if end - 1 > max_record_bytes:
        oversize = tuple(len(line) - 1 for line in lines if len(line) - 1 > max_record_bytes)
    return Chunk(payload, len(lines), None, oversize, whole)


class LineSplitter:
    """Turns a stream of bytes into records as soon as their lines end; blank lines are left out.

    A record over 16 MiB comes out in numbered parts, so no more than that is held.
    """

    def __init__(self, max_record_bytes: int) -> None:
        """Records longer than `max_record_bytes` are listed in `oversize`, and kept."""
        self.oversize: list[int] = []
        """The sizes in bytes of over-long records since this was last emptied."""
        self._max_record_bytes = max_record_bytes
        self._held: list[bytes] = []
        self._held_bytes, self._parts = 0, 0

    def feed(self, data: bytes) -> list[Records]:
        """The records whose lines end in `data`, in order."""
        first = data.find(b"\n") + 1
        if not first:
            return self._hold(data)
        found: list[Records] = []
        if self._held or self._parts:
            found = [*self._hold(data[: first - 1]), *self._line()]
            data = data[first:]
        chunk = cut(data, self._max_record_bytes)
        if chunk is None:
            return found + self._hold(data)
        self.oversize += chunk.oversize
        if chunk.count:
            found.append(Records(chunk.payload, chunk.count))
        return found + self._hold(data[len(chunk.consumed) :])

    def end(self) -> list[Records]:
        """The last record, if its line did not end."""
        return self._line() if self._held or self._parts else []

    def _hold(self, data: bytes) -> list[Records]:
        found: list[Records] = []
        if not data:
            return found
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > MAX_WHOLE_BYTES:
            whole = b"".join(self._held)
            while len(whole) > MAX_WHOLE_BYTES:
                self._parts += 1
                found.append(Records(whole[:MAX_WHOLE_BYTES] + b"\n", 1, (), self._parts))
                whole = whole[MAX_WHOLE_BYTES:]
            self._held, self._held_bytes = [whole], len(whole)
        return found

    def _line(self) -> list[Records]:
        line, parts = b"".join(self._held), self._parts
        self._held, self._held_bytes, self._parts = [], 0, 0
        size = parts * MAX_WHOLE_BYTES + len(line)
        if size > self._max_record_bytes:
            self.oversize.append(size)
        if parts:
            return [Records(line + b"\n", 1, (), parts + 1)]
        return [] if line in (b"", b"\r") else [Records(line + b"\n", 1)]
