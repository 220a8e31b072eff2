"""The columns of a CSV with messages in it, of as many rows at once as a block of the file has."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, zip_longest
from typing import Final

from siemrelay.proof.envelopes import WHOLE_MESSAGE
from siemrelay.proof.exports.lines import (
    LONG_LINE_BYTES,
    MOST_LINE_BYTES,
    Block,
    TooLarge,
    check_decoded_size,
)

# A line that no export has: half a surrogate pair, which UTF-8 cannot say, and which is none of
# those that stand for bytes. Where it comes out as a row of its own, all rows before it are whole.
_END: Final = "\ud800"

# They stand for the text of a quoted cell, for a pair of quotes, and for the end of a row as a cell
# of its own, while a block is cut at commas.
_QUOTED: Final = "\0"
_PAIR: Final = "\1"
_END_OF_ROW: Final = "\2"


def csv_header(line: bytes) -> list[str] | None:
    """The names of the columns, if this is the first line of a CSV with a message in it."""
    if len(line) > LONG_LINE_BYTES:
        return None
    try:
        names = next(csv.reader([line.decode()]), [])
    except (UnicodeDecodeError, csv.Error):
        return None
    return names if set(names) & set(WHOLE_MESSAGE) else None


def csv_columns(
    blocks: Iterable[Block], width: int
) -> Iterator[tuple[list[list[str]], Sequence[int]]]:
    """The columns of rows that are not empty, and the last line of each row; the first row is the
    header, of `width` cells.

    A cell that a row lacks is empty. Where rows have more than `width` cells, one more column has
    the last of each. Raises ValueError, with a sentence for a person, for a damaged CSV; TooLarge
    for a row that would take too much memory.
    """
    csv.field_size_limit(MOST_LINE_BYTES)
    blocks = iter(blocks)
    for number, block in blocks:
        columns = _plain_columns(block, width)
        if columns is not None and any(map(all, columns)):  # so no row is empty
            yield columns, range(number, number + len(block))
            continue
        reader = _Reader(chain([(number, block)], blocks), number)
        while not reader.is_at_end_of_block:
            rows, lines = reader.read()
            full = [i for i, row in enumerate(rows) if any(row)]
            if full:
                yield _columns([rows[i] for i in full], width), [lines[i] for i in full]


def _columns(rows: list[list[str]], width: int) -> list[list[str]]:
    if max(map(len, rows)) > width:
        rows = [[*row[:width], row[-1]] if len(row) > width else row for row in rows]
    columns = list(map(list, zip_longest(*rows, fillvalue="")))
    return columns + [[""] * len(rows)] * (width - len(columns))


def _plain_columns(lines: Sequence[bytes], width: int) -> list[list[str]] | None:
    """The columns of lines that are a row each; None for what the csv module has to read.

    Invariant: these are the cells that the csv module reads, checked by
    test_plain_rows_of_a_csv_are_read_as_the_csv_module_reads_them. A quoted cell begins and ends
    at a comma or at the end of its line, and quotes in it are pairs: what is not so leaves a mark
    that is not the whole of its cell.
    """
    if sum(map(len, lines)) > LONG_LINE_BYTES:
        return None
    text = b"\n".join(lines).decode("utf-8", "surrogateescape") + "\n"
    if _QUOTED in text or _PAIR in text or _END_OF_ROW in text:
        return None
    pieces = text.replace('""', _PAIR).split('"')
    plain = _QUOTED.join(pieces[::2])
    plain = plain.replace("\r\n" if "\r" in plain else "\n", f",{_END_OF_ROW},")
    stride, cells = width + 1, plain.split(",")[:-1]
    if "\r" in plain or "\n" in plain or len(cells) != len(lines) * stride:
        return None
    if cells[width::stride] != [_END_OF_ROW] * len(lines):  # a quoted cell has a line feed
        return None
    quoted = _QUOTED.join(pieces[1::2]).replace(_PAIR, '"').split(_QUOTED)[: len(pieces) // 2]
    columns = [cells[i::stride] for i in range(width)]
    if _PAIR not in plain:
        places = [i for i, column in enumerate(columns) if column[-1] == _QUOTED]
        if len(quoted) == len(places) * len(lines) and all(
            columns[i].count(_QUOTED) == len(lines) for i in places
        ):
            for nth, i in enumerate(places):
                columns[i] = quoted[nth :: len(places)]
            return columns
    if cells.count(_QUOTED) != len(quoted) or cells.count(_PAIR) != plain.count(_PAIR):
        return None
    texts = iter(quoted)
    cells = [next(texts) if x == _QUOTED else "" if x == _PAIR else x for x in cells]
    return [cells[i::stride] for i in range(width)]


class _Reader:
    """Reads blocks with the csv module."""

    def __init__(self, blocks: Iterable[Block], number: int) -> None:
        """`number` is that of the first line."""
        self._reader = csv.reader(chain.from_iterable(self._fed(blocks)))
        self._before, self._lines = number - 1, number - 1
        self._ends = self._row_bytes = 0
        self._is_in_row = self._is_at_end = self.is_at_end_of_block = False

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
                self.is_at_end_of_block = at == len(lines)
                self._lines += len(some)
                text = b"\n".join(some).decode("utf-8", "surrogateescape")
                yield [f"{line}\n" for line in text.split("\n")]
                self._is_in_row = True  # until `read` comes to the end
                self._ends += 1
                yield (_END + "\n",)
        self._is_at_end = True

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
                f"line {self._before + self._reader.line_num - self._ends}: a damaged CSV: {error}"
            ) from error
        self._is_in_row, self._row_bytes = False, 0
        if self._ends > ends + 1 or self._is_at_end:  # one may stand in a cell
            rows = [[cell.replace(_END + "\n", "") for cell in row] for row in rows]
        if self._lines - line == len(rows):
            return rows, range(line + 1, self._lines + 1)
        lines = list[int]()
        for row in rows:
            line = min(line + 1 + sum(cell.count("\n") for cell in row), self._lines)
            lines.append(line)
        return rows, lines
