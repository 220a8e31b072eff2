"""The rows on one leaf page of a SQLite file, read without SQLite.

Source: SQLite's file format, sections 1.6 (b-tree pages), 2.1 (records).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from siemrelay.buffer.sqlite.schema import PAGE_BYTES

TABLE_LEAF: Final = 0x0D
INDEX_LEAF: Final = 0x0A

_LEAF_HEADER_BYTES: Final = 8

_INTEGER_BYTES: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


class DamagedPage(Exception):
    """Bytes that cannot be what their place in the file says."""


class RawRow(NamedTuple):
    """A row as its page has it; `rowid` is None in tables without one."""

    rowid: int | None
    values: list[Any]


def _no_overflow(number: int, size: int) -> bytes:
    raise DamagedPage(f"overflow page {number} for {size} bytes")


def leaf_rows(
    page: bytes, start: int, leaf: int, overflow: Callable[[int, int], bytes] = _no_overflow
) -> Iterator[RawRow]:
    """The rows of a leaf page that begins at `start`, as far as they can be read.

    `overflow` gives so many bytes of the chain of pages that begins with that number, or raises
    DamagedPage; without it rows that go on elsewhere are left out.
    """
    (cells,) = struct.unpack_from(">H", page, start + 3)
    first = start + _LEAF_HEADER_BYTES
    for offset in range(first, min(first + 2 * cells, PAGE_BYTES - 1), 2):
        (at,) = struct.unpack_from(">H", page, offset)
        try:
            size, at = _varint(page, at)
            rowid = None
            if leaf == TABLE_LEAF:
                rowid, at = _varint(page, at)
            local = _local_bytes(size, leaf)
            record = page[at : at + local]
            if local < size:
                (following,) = struct.unpack_from(">I", page, at + local)
                record += overflow(following, size - local)
            yield RawRow(rowid, _values(record))
        except (DamagedPage, IndexError, struct.error, UnicodeDecodeError):
            continue


def _local_bytes(size: int, leaf: int) -> int:
    """How much of a payload is on its leaf page."""
    most = PAGE_BYTES - 35
    if leaf == INDEX_LEAF:
        most = (PAGE_BYTES - 12) * 64 // 255 - 23
    if size <= most:
        return size
    least = (PAGE_BYTES - 12) * 32 // 255 - 23
    local = least + (size - least) % (PAGE_BYTES - 4)
    return local if local <= most else least


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A big-endian number of 7 bits a byte, the ninth byte of 8; and where it ends."""
    value = 0
    for i in range(8):
        byte = data[at + i]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + i + 1
    return value << 8 | data[at + 8], at + 9


def _values(record: bytes) -> list[Any]:
    header_end, at = _varint(record, 0)
    if header_end > len(record):
        raise DamagedPage("a record's header is longer than the record")
    values, body = list[Any](), header_end
    while at < header_end:
        kind, at = _varint(record, at)
        value, body = _value(record, kind, body)
        values.append(value)
    return values


def _value(record: bytes, kind: int, at: int) -> tuple[Any, int]:
    if kind == 0:
        return None, at
    if kind in (8, 9):
        return kind - 8, at
    if kind == 7:
        return struct.unpack_from(">d", record, at)[0], at + 8
    if kind in (10, 11):
        raise DamagedPage(f"serial type {kind}")
    size = _INTEGER_BYTES.get(kind, (kind - 12) // 2)
    data = record[at : at + size]
    if len(data) != size:
        raise DamagedPage("a value is longer than its record")
    if kind in _INTEGER_BYTES:
        return int.from_bytes(data, "big", signed=True), at + size
    return data if kind % 2 == 0 else data.decode(), at + size
