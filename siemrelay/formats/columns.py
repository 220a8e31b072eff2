"""Messages of many events made column by column, so that the loops over events run in C.

A column is one part of every message, in the order of the events. None in it stands for an event
that has nothing there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any, Final, TypeVar

from siemrelay.formats.text import text_of, utf8

FEW: Final = 12
"""Fewer events than this are made faster one by one: columns cost the same for one as for ten."""

Column = Sequence[Any]
"""Texts and None, one for each event."""

Value = TypeVar("Value")

# Printable ASCII that texts seldom have; where one has it the texts are told apart one by one.
_BETWEEN: Final = "`"


def texts(column: Sequence[Any]) -> Column:
    """Values of events as `text_of` gives them; None where there is none, or an empty text."""
    kinds = set(map(type, column))
    if kinds == {str}:
        return told(column)
    if kinds == {int}:
        return list(map(str, column))
    return [None if value is None or value == "" else text_of(value) for value in column]


def told(column: Column) -> Column:
    """The column with None for every empty text, too."""
    return column if all(column) else [text or None for text in column]


def on_present(
    column: Column, change: Callable[[Sequence[Any]], Iterable[Value]]
) -> list[Value | None]:
    """What `change` makes of the texts that are there, each in its place."""
    if all(column):
        return list(change(column))
    changed = iter(change([text for text in column if text is not None]))
    return [None if text is None else next(changed) for text in column]


def where(kinds: Sequence[Any], wanted: Any, column: Column) -> Column:
    """The column where the kind is the wanted one, None elsewhere."""
    if kinds.count(wanted) == len(kinds):
        return column
    return [text if kind == wanted else None for kind, text in zip(kinds, column, strict=True)]


def each(column: Column, escape: Callable[[str], str]) -> Column:
    """`escape` of every text, found for all of them in one go.

    `escape` looks at each character by itself, and gives the very same object back where it has
    nothing to do.
    """
    try:
        joined = _BETWEEN.join(column)
    except TypeError:  # there is a None
        return on_present(column, lambda there: each(there, escape))
    escaped = escape(joined)
    if escaped is joined:
        return column
    cells = escaped.split(_BETWEEN)
    return cells if len(cells) == len(column) else list(map(escape, column))


class Lines:
    """One line an event, of texts that all of them share and columns that differ."""

    def __init__(self, count: int) -> None:
        self._count, self._columns, self._shared = count, list[Iterable[str]](), ""

    def text(self, text: str) -> None:
        """Goes on in every line with the same."""
        self._shared += text

    def column(self, column: Iterable[str]) -> None:
        """Goes on in each line with its own."""
        if self._shared:
            self._columns.append(repeat(self._shared, self._count))
            self._shared = ""
        self._columns.append(column)

    def pair(self, before: str, column: Column, after: str = "") -> None:
        """`before`, a value and `after` in the lines that have the value, in others nothing."""
        if all(column) or None not in column:
            self.text(before)
            self.column(column)
            self.text(after)
        elif _has_any(column):
            self.column(_where_there(before, column, after))

    def pairs(self, pairs: Iterable[tuple[str, Column, str]], between: str) -> None:
        """The pairs that a line has, as `pair` takes them, told apart by `between`."""
        there = [pair for pair in pairs if _has_any(pair[1])]
        if not there:
            return
        first, *others = there
        if None not in first[1]:
            self.pair(*first)
            for before, column, after in others:
                self.pair(between + before, column, after)
            return
        cells = zip(*(_where_there(*pair) for pair in there), strict=True)
        self.column(map(between.join, map(filter, repeat(None), cells)))

    def group(self, before: str, pairs: Iterable[tuple[str, Column, str]], after: str) -> None:
        """`before`, the pairs that a line has, told apart by commas, and `after`.

        Nothing in lines that have none of the pairs.
        """
        there = [pair for pair in pairs if _has_any(pair[1])]
        if any(None not in column for _, column, _ in there):
            self.text(before)
            self.pairs(there, ",")
            self.text(after)
        elif there:
            inner = Lines(self._count)
            inner.pairs(there, ",")
            self.pair(before, told(list(inner.joined())), after)

    def joined(self) -> Iterable[str]:
        """The lines."""
        self.column(repeat("", self._count))
        return map("".join, zip(*self._columns, strict=True))

    def encoded(self) -> list[bytes]:
        """The lines in UTF-8."""
        return utf8(self.joined())


def _has_any(column: Column) -> bool:
    return all(column) or column.count(None) < len(column)


def _where_there(before: str, column: Column, after: str = "") -> list[str]:
    return ["" if text is None else f"{before}{text}{after}" for text in column]
