"""Rows of a SQLite file that SQLite cannot read any more: every page by itself, without the tree.

One damaged page makes SQLite refuse the pages behind it, the whole table at the worst. Records are
in leaf pages, which say of themselves what they are, so all others can still be read.
Source: SQLite's file format, sections 1.6 (b-tree pages), 2.1 (records), 4 (write-ahead log).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from siemrelay.buffer.sqlite.schema import PAGE_BYTES

_TABLE_LEAF: Final = 0x0D
_INDEX_LEAF: Final = 0x0A

_FILE_HEADER_BYTES: Final = 100
_LEAF_HEADER_BYTES: Final = 8
_LOG_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24
_LOG_MAGIC: Final = (0x377F0682, 0x377F0683)

_INTEGER_BYTES: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


class DamagedPage(Exception):
    """Bytes that cannot be what their place in the file says."""


class RawRow(NamedTuple):
    """A row as its page has it; `rowid` is None in tables without one."""

    rowid: int | None
    values: list[Any]


class Pages:
    """The pages of a database file, as of the last transaction in its write-ahead log.

    For files that nobody writes to meanwhile. Use as a context manager. Raises OSError.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._log = path.with_name(f"{path.name}-wal")
        self._frames = self._committed_frames()
        in_file = os.fstat(self._descriptor).st_size // PAGE_BYTES
        self.count = max(in_file, *self._frames, 0)

    def __enter__(self) -> Pages:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._descriptor)

    def rows(self, kind: Literal["table", "index"]) -> Iterator[RawRow]:
        """The rows of every leaf page of that kind, as far as they can be read.

        Deleted rows may be among them: a page keeps its bytes until it is used again.
        """
        leaf = _TABLE_LEAF if kind == "table" else _INDEX_LEAF
        for number in range(1, self.count + 1):
            page = self._page(number)
            start = _FILE_HEADER_BYTES if number == 1 else 0
            if page[start : start + 1] == bytes([leaf]):
                yield from self._leaf_rows(page, start, leaf)

    def _leaf_rows(self, page: bytes, start: int, leaf: int) -> Iterator[RawRow]:
        (cells,) = struct.unpack_from(">H", page, start + 3)
        first = start + _LEAF_HEADER_BYTES
        for offset in range(first, min(first + 2 * cells, PAGE_BYTES - 1), 2):
            (at,) = struct.unpack_from(">H", page, offset)
            try:
                yield self._row(page, at, leaf)
            except (DamagedPage, IndexError, struct.error, UnicodeDecodeError):
                continue

    def _row(self, page: bytes, at: int, leaf: int) -> RawRow:
        size, at = _varint(page, at)
        rowid = None
        if leaf == _TABLE_LEAF:
            rowid, at = _varint(page, at)
        return RawRow(rowid, _values(self._payload(page, at, size, leaf)))

    def _payload(self, page: bytes, at: int, size: int, leaf: int) -> bytes:
        if size > self.count * PAGE_BYTES:  # a damaged length may be anything
            raise DamagedPage(f"a payload of {size} bytes")
        local, most = size, PAGE_BYTES - 35
        if leaf == _INDEX_LEAF:
            most = (PAGE_BYTES - 12) * 64 // 255 - 23
        if size > most:
            least = (PAGE_BYTES - 12) * 32 // 255 - 23
            local = least + (size - least) % (PAGE_BYTES - 4)
            local = local if local <= most else least
        parts = [page[at : at + local]]
        if local < size:
            (following,) = struct.unpack_from(">I", page, at + local)
            left = size - local
            while left > 0:
                if not 1 < following <= self.count:
                    raise DamagedPage(f"overflow page {following}")
                more = self._page(following)
                (following,) = struct.unpack_from(">I", more)
                parts.append(more[4 : 4 + left])
                left -= len(parts[-1])
        return b"".join(parts)

    def _page(self, number: int) -> bytes:
        if (frame := self._frames.get(number)) is not None:
            return frame
        page = os.pread(self._descriptor, PAGE_BYTES, (number - 1) * PAGE_BYTES)
        return page.ljust(PAGE_BYTES, b"\0")

    def _committed_frames(self) -> dict[int, bytes]:
        """The newest content of each page in the log, up to its last commit.

        Checksums are not verified: a damaged frame would make all behind it unreadable.
        """
        try:
            log = self._log.read_bytes()
        except FileNotFoundError:
            return {}
        if len(log) < _LOG_HEADER_BYTES:
            return {}
        magic, _, page_bytes, _, *salts = struct.unpack_from(">IIIIII", log)
        if magic not in _LOG_MAGIC or page_bytes != PAGE_BYTES:
            return {}
        frames, uncommitted = dict[int, bytes](), dict[int, bytes]()
        step = _FRAME_HEADER_BYTES + PAGE_BYTES
        for at in range(_LOG_HEADER_BYTES, len(log) - step + 1, step):
            number, pages_after_commit, *frame_salts = struct.unpack_from(">IIII", log, at)
            if frame_salts != salts:
                break  # of an earlier use of the log
            uncommitted[number] = log[at + _FRAME_HEADER_BYTES : at + step]
            if pages_after_commit:
                frames |= uncommitted
                uncommitted.clear()
        return frames


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
