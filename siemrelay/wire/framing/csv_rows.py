"""CSV (RFC 4180) → records: a row may have line feeds in its quoted values.

With a header line every row becomes a JSON object under the header's names, since a row by itself
does not say what its values are: rows of files with other headers are stored beside it, and it is
decoded a week later. With declared columns a row stays as it was written.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import chain
from typing import Final

import msgspec

from siemrelay.wire.framing.contract import MAX_WHOLE_BYTES, Ahead, Chunk, Rest, chunk_of

# A quote that is never closed makes everything behind it one value. A row over one of these is
# none: its first line is taken by itself, and reading goes on with the next.
MAX_ROW_LINES: Final = 1000
MAX_ROW_BYTES: Final = 256 << 10

# A header line is found within so much of a file.
_BEGIN_BYTES: Final = 64 << 10

# The module's own limit of 128 KiB a value would make rows of long values unreadable.
csv.field_size_limit(MAX_WHOLE_BYTES)

_LINES: Final = re.compile(r"[^\n]*\n|[^\n]+")

Row = tuple[list[str] | None, int]
"""The values, None where a line is no row, and how many lines it takes."""


class Dialect(msgspec.Struct, frozen=True):
    """How values are separated and quoted. A quote inside a quoted value is doubled."""

    delimiter: str = ","
    quote: str = '"'

    def values(self, record: str) -> list[str] | None:
        """The values of one row, which may have line feeds inside; None if it is none."""
        rows = list(self.split(_LINES.findall(record), final=True))
        return rows[0][0] if len(rows) == 1 else None

    def split(self, lines: Sequence[str], *, final: bool) -> Iterator[Row]:
        """The rows at the beginning of `lines`, up to one that may go on behind them."""
        start = 0
        while start < len(lines):
            end, whole = start, True
            # The blank line behind them shows whether the last row is open: it would take it in.
            left = map(lines.__getitem__, range(start, len(lines)))
            reader = csv.reader(
                chain(left, ("\n",)), delimiter=self.delimiter, quotechar=self.quote
            )
            try:
                for row in reader:
                    stop = start + reader.line_num
                    if stop > len(lines):
                        whole = not row
                        break
                    if not _is_bounded(lines, end, stop):
                        whole = False
                        break
                    yield row, stop - end
                    end = stop
            except csv.Error:
                final_here = True
            else:
                if whole:
                    return
                final_here = final or not _is_bounded(lines, end, len(lines))
            if not final_here:
                return
            yield None, 1
            start = end + 1


def _is_bounded(lines: Sequence[str], start: int, end: int) -> bool:
    return end - start <= MAX_ROW_LINES and (
        end - start == 1 or sum(map(len, lines[start:end])) <= MAX_ROW_BYTES
    )


def text(data: bytes) -> str:
    """Bytes as text from which they can be had back."""
    return data.decode("utf-8", "surrogateescape")


def column_names(row: Sequence[str]) -> tuple[str, ...]:
    """The names of a header: an empty one is `columnN`, one that comes again gets a number."""
    names: dict[str, None] = {}
    for i, written in enumerate(row, 1):
        name = wanted = written.strip() or f"column{i}"
        count = 1
        while name in names:
            count += 1
            name = f"{wanted}_{count}"
        names[name] = None
    return tuple(names)


def named(names: Sequence[str], values: Sequence[str]) -> dict[str, str] | None:
    """The values by their names; those beyond the names are `columnN`.

    None if it is no row of several columns: a line of text has no delimiter.
    """
    if len(values) == 1 < len(names):
        return None
    pairs = dict(zip(names, values, strict=False))
    for i in range(len(names), len(values)):
        pairs.setdefault(f"column{i + 1}", values[i])
    return pairs


class CsvFraming:
    """CSV with a header line, or with declared columns and none."""

    by_first_line = False  # names may be quoted, and have line feeds

    def __init__(
        self, dialect: Dialect, columns: Sequence[str] | None, max_record_bytes: int
    ) -> None:
        self.max_record_bytes = max_record_bytes
        self._dialect, self._columns = dialect, None if columns is None else tuple(columns)
        self.begin_bytes = _BEGIN_BYTES if columns is None else 0

    def splitter(self, begin: bytes, *, at_start: bool) -> CsvSplitter:
        """See `Framing`."""
        if self._columns is not None:
            return CsvSplitter(self._dialect, list(self._columns), None, header_follows=False)
        lines = [text(line) for line in BytesIO(begin).readlines()]
        rows = (row for row, _ in self._dialect.split(lines, final=True) if row != [])
        header = next(rows, None) or []
        return CsvSplitter(self._dialect, header, column_names(header), header_follows=at_start)


class CsvSplitter:
    """Rows as records; see `Splitter`. A row that repeats the header is left out."""

    wait_s: Final = None

    def __init__(
        self, dialect: Dialect, header: list[str], names: tuple[str, ...] | None,
        *, header_follows: bool,
    ) -> None:  # fmt: skip
        """With `names` rows become objects."""
        self._dialect, self._header, self._names = dialect, header, names
        self._header_follows = header_follows

    def split(self, data: bytes, rest: Rest, ahead: Ahead = ()) -> Chunk | None:
        """See `Splitter`."""
        end = len(data) if rest is Rest.FINAL else data.rfind(b"\n") + 1
        lines = BytesIO(data[:end]).readlines()
        records: list[bytes] = []
        taken, header_follows = 0, self._header_follows
        texts = [text(line) for line in lines]
        for row, count in self._dialect.split(texts, final=rest is Rest.FINAL):
            written = b"".join(lines[taken : taken + count])
            taken += count
            if row == []:
                continue
            if header_follows and row is not None:
                # Whatever stands first: it was read as the header when it was complete.
                self._header, self._names = row, column_names(row)
            elif row != self._header:
                records.append(self._record(row, written))
            header_follows = False
        if header_follows and rest is not Rest.FINAL:
            return None  # blank lines before the header go with it
        return chunk_of(records, b"".join(lines[:taken])) if taken else None

    def _record(self, row: list[str] | None, written: bytes) -> bytes:
        pairs = None if row is None or self._names is None else named(self._names, row)
        if pairs is None:
            return written.rstrip(b"\r\n")
        try:
            return msgspec.json.encode(pairs)
        except UnicodeEncodeError:
            return json.dumps(pairs, ensure_ascii=False).encode("utf-8", "surrogateescape")
