"""Rows of a SQLite file that SQLite cannot read any more: every page by itself, without the tree.

One damaged page makes SQLite refuse the pages behind it, the whole table at the worst. Records are
in leaf pages, which say of themselves what they are, so all others can still be read.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final, Literal

from siemrelay.buffer.sqlite.leaves import (
    INDEX_LEAF,
    TABLE_LEAF,
    DamagedPage,
    RawRow,
    leaf_rows,
)
from siemrelay.buffer.sqlite.schema import PAGE_BYTES
from siemrelay.buffer.sqlite.write_ahead_log import LogFrame, WriteAheadLog

_FILE_HEADER_BYTES: Final = 100


class Pages:
    """The pages of a database file, as of the last transaction in its write-ahead log.

    For files that nobody writes to meanwhile. Use as a context manager. Raises OSError.
    """

    def __init__(self, path: Path) -> None:
        self._proven, self._doubtful = _newest_in_log(path)
        self._choices = 1  # of the pages that the rows of one page go on in
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        in_file = os.fstat(self._descriptor).st_size // PAGE_BYTES
        self.count = max(in_file, *self._proven, 0)
        # The number of a page may be what is damaged; without damage they are dense.
        most = self.count + len(self._doubtful)
        self._doubtful = {n: frame for n, frame in self._doubtful.items() if 0 < n <= most}
        self.count = max(self.count, *self._doubtful, 0)

    def __enter__(self) -> Pages:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._descriptor)

    def rows(self, kind: Literal["table", "index"]) -> Iterator[RawRow]:
        """The rows of every leaf page of that kind, as far as they can be read.

        Deleted rows may be among them: a page keeps its bytes until it is used again. A row of a
        table that goes on in a page whose newest content has a wrong checksum comes once for each
        content that the page may have had.
        """
        for number in range(1, self.count + 1):
            yield from self._rows(number, self._whole_page(number), kind)

    def doubtful_rows(self, kind: Literal["table", "index"]) -> Iterator[RawRow]:
        """As `rows`, of pages whose newest content has a wrong checksum."""
        for number, frame in self._doubtful.items():
            for change in frame.changes if kind == "table" else ():
                yield from self._rows(number, change.apply(frame.content), kind)
            yield from self._rows(number, frame.content, kind)

    def _rows(self, number: int, page: bytes, kind: Literal["table", "index"]) -> Iterator[RawRow]:
        leaf = TABLE_LEAF if kind == "table" else INDEX_LEAF
        start = _FILE_HEADER_BYTES if number == 1 else 0
        if page[start : start + 1] != bytes([leaf]):
            return
        self._choices, choice = 1, 0
        while choice < self._choices:
            yield from leaf_rows(page, start, leaf, partial(self._overflow, choice))
            choice = choice + 1 if kind == "table" else self._choices

    def _overflow(self, choice: int, following: int, size: int) -> bytes:
        if size > self.count * PAGE_BYTES:  # a damaged length may be anything
            raise DamagedPage(f"a payload of {size} bytes")
        parts = []
        while size > 0:
            if not 1 < following <= self.count:
                raise DamagedPage(f"overflow page {following}")
            page = self._page(following, choice)
            (following,) = struct.unpack_from(">I", page)
            parts.append(page[4 : 4 + size])
            size -= len(parts[-1])
        return b"".join(parts)

    def _page(self, number: int, choice: int) -> bytes:
        """The newest content of a page: as it was found, or with one of the possible changes."""
        if (frame := self._doubtful.get(number)) is None:
            return self._whole_page(number)
        self._choices = max(self._choices, len(frame.changes) + 1)
        if 0 < choice <= len(frame.changes):
            return frame.changes[choice - 1].apply(frame.content)
        return frame.content

    def _whole_page(self, number: int) -> bytes:
        if (frame := self._proven.get(number)) is not None:
            return frame
        page = os.pread(self._descriptor, PAGE_BYTES, (number - 1) * PAGE_BYTES)
        return page.ljust(PAGE_BYTES, b"\0")


def _newest_in_log(path: Path) -> tuple[dict[int, bytes], dict[int, LogFrame]]:
    """The newest content of each page in the log, up to its last commit, and newer damaged frames.

    Most of a damaged frame, or all but a byte, may be as it was written.
    """
    newest, newer = dict[int, bytes](), dict[int, LogFrame]()
    with WriteAheadLog(path) as log:
        proven, doubtful = dict[int, bytes](), dict[int, LogFrame]()  # of one transaction
        for frame in log.frames():
            if frame.proven:
                proven[frame.page] = frame.content
            else:
                doubtful |= dict.fromkeys([*frame.other_pages, frame.page], frame)
            if frame.commits:
                newest |= proven
                newer = {n: each for n, each in (newer | doubtful).items() if n not in proven}
                proven.clear()
                doubtful.clear()
    return newest, newer
