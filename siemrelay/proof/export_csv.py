"""The rows of a CSV with messages in it, as many at once as a block of the file has."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Final

from siemrelay.proof.export_lines import (
    LONG_LINE_BYTES,
    MOST_LINE_BYTES,
    Block,
    TooLarge,
    check_decoded_size,
)
from siemrelay.proof.leaf import WHOLE_MESSAGE

# A line that no export has: half a surrogate pair, which UTF-8 cannot say, and which is none of
# those that stand for bytes. Where it comes out as a row of its own, all rows before it are whole.
_END: Final = "\ud800"


def csv_header(line: bytes) -> list[str] | None:
    """The names of the columns, if this is the first line of a CSV with a message in it."""
    if len(line) > LONG_LINE_BYTES:
        return None
    try:
        names = next(csv.reader([line.decode()]), [])
    except (UnicodeDecodeError, csv.Error):
        return None
    return names if set(names) & set(WHOLE_MESSAGE) else None


def csv_rows(blocks: Iterable[Block]) -> Iterator[tuple[list[list[str]], Sequence[int]]]:
    """Rows that are not empty, and the last line of each; the first one is the header.

    Raises ValueError, with a sentence for a person, for a damaged CSV; TooLarge for a row that
    would take too much memory.
    """
    csv.field_size_limit(MOST_LINE_BYTES)
    reader = _Reader(blocks)
    while not reader.is_at_end:
        rows, lines = reader.read()
        if not all(map(any, rows)):
            full = [i for i, row in enumerate(rows) if any(row)]
            rows, lines = [rows[i] for i in full], [lines[i] for i in full]
        if rows:
            yield rows, lines


class _Reader:
    def __init__(self, blocks: Iterable[Block]) -> None:
        self._reader = csv.reader(chain.from_iterable(self._fed(blocks)))
        self._lines = self._ends = self._row_bytes = 0
        self._is_in_row = False
        self.is_at_end = False

    def _fed(self, blocks: Iterable[Block]) -> Iterator[Iterable[str]]:
        """All lines, and an `_END` behind each block and behind each line of a row that goes on in
        the next block."""
        for number, lines in blocks:
            are_long, at = sum(map(len, lines)) > LONG_LINE_BYTES, 0
            while at < len(lines):
                some = lines[at : at + 1] if are_long or self._is_in_row else lines[at:]
                if len(some) == 1:
                    self._check_row(some[0], number + at)
                at += len(some)
                self._lines += len(some)
                text = b"\n".join(some).decode("utf-8", "surrogateescape")
                yield [f"{line}\n" for line in text.split("\n")]
                self._is_in_row = True  # until `read` comes to the end
                self._ends += 1
                yield (_END + "\n",)
        self.is_at_end = True

    def _check_row(self, line: bytes, number: int) -> None:
        self._row_bytes += len(line)
        if self._row_bytes > MOST_LINE_BYTES:
            raise TooLarge(f"line {number:,}: one row of the CSV is longer than "
                           f"{MOST_LINE_BYTES >> 20} MiB: a quote is missing, or this is no "
                           "export")  # fmt: skip
        if self._row_bytes > LONG_LINE_BYTES:
            check_decoded_size(line, number)

    def read(self) -> tuple[list[list[str]], Sequence[int]]:
        """The rows up to where one ends together with a block, and the last line of each."""
        line, ends = self._lines, self._ends
        try:
            rows = list(iter(self._reader.__next__, [_END]))
        except csv.Error as error:
            raise ValueError(
                f"line {self._reader.line_num - self._ends}: a damaged CSV: {error}"
            ) from error
        self._is_in_row, self._row_bytes = False, 0
        if self._ends > ends + 1 or self.is_at_end:  # one may stand in a cell
            rows = [[cell.replace(_END + "\n", "") for cell in row] for row in rows]
        if self._lines - line == len(rows):
            return rows, range(line + 1, self._lines + 1)
        lines = list[int]()
        for row in rows:
            line = min(line + 1 + sum(cell.count("\n") for cell in row), self._lines)
            lines.append(line)
        return rows, lines
