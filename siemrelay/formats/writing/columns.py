"""Messages of many events made column by column, so that the loops over events run in C."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any, Final, TypeVar

from siemrelay.core.event import FIELDS, Selection
from siemrelay.formats.writing.text import text_of, utf8

# Printable ASCII that texts seldom have; where one has it the texts are told apart one by one.
_BETWEEN: Final = "`"

Value = TypeVar("Value")


class Column:
    """One part of every message, a text or None each, in the order of the events."""

    __slots__ = ("complete", "empty", "texts")

    def __init__(self, texts: Sequence[Any]) -> None:
        self.texts = texts
        self.complete = all(texts) or None not in texts
        """Whether no event is without."""
        self.empty = not self.complete and texts.count(None) == len(texts)
        """Whether every event is without."""

    def like(self, texts: Sequence[Any]) -> Column:
        """Other texts for the same events."""
        column = Column.__new__(Column)
        column.texts, column.complete, column.empty = texts, self.complete, self.empty
        return column

    def or_else(self, other: Column) -> Column:
        """The other column's text for events that are without."""
        if self.complete or other.empty:
            return self
        if self.empty:
            return other
        return Column([
            rest if text is None else text
            for text, rest in zip(self.texts, other.texts, strict=True)
        ])  # fmt: skip

    def made(self, make: Callable[[Sequence[str]], Sequence[Value]]) -> Sequence[Value | None]:
        """What `make` makes of the texts that are there, each in its place."""
        if self.complete:
            return make(self.texts)
        if self.empty:
            return self.texts
        made = iter(make([text for text in self.texts if text is not None]))
        return [None if text is None else next(made) for text in self.texts]

    def escaped(self, escape: Callable[[str], str]) -> Column:
        """`escape` of every text, found for all of them in one go.

        `escape` looks at each character by itself, and gives the very same object back where it
        has nothing to do.
        """

        def escaped(texts: Sequence[str]) -> Sequence[str]:
            joined = _BETWEEN.join(texts)
            changed = escape(joined)
            if changed is joined:
                return texts
            cells = changed.split(_BETWEEN)
            return cells if len(cells) == len(texts) else list(map(escape, texts))

        return self.like(self.made(escaped))

    def where(self, kinds: Sequence[Any], wanted: Any) -> Column:
        """The texts where the kind is the wanted one, None elsewhere."""
        if self.empty:
            return self
        found = kinds.count(wanted)
        if found == len(kinds):
            return self
        if not found:
            return Column([None] * len(kinds))
        return Column([
            text if kind == wanted else None for kind, text in zip(kinds, self.texts, strict=True)
        ])  # fmt: skip


def told(values: Sequence[Any]) -> Column:
    """The column of texts; an empty one is none."""
    if all(values):
        return Column(values)
    return Column([text or None for text in values] if any(values) else [None] * len(values))


def texts(selection: Selection, field: str) -> Column:
    """A field as `text_of` gives it; an empty text is none."""
    values = selection.column(field)
    if field == "severity":
        return Column(list(map(_SEVERITIES.__getitem__, values)))
    if field in FIELDS:
        return told(values)
    return told([None if value is None else text_of(value) for value in values])


_SEVERITIES: Final = {
    severity: None if severity is None else str(severity) for severity in (None, *range(11))
}

Pair = tuple[str, Column, str]
"""What stands before the text of a column, the column, and what stands after."""


class Lines:
    """One line an event, of texts that all of them share and columns that differ."""

    def __init__(self, count: int) -> None:
        self._count, self._columns, self._shared = count, list[Iterable[str]](), ""

    def text(self, text: str) -> None:
        """Goes on in every line with the same."""
        self._shared += text

    def each(self, texts: Iterable[str]) -> None:
        """Goes on in each line with its own."""
        if self._shared:
            self._columns.append(repeat(self._shared, self._count))
            self._shared = ""
        self._columns.append(texts)

    def pair(self, before: str, column: Column, after: str = "") -> None:
        """Goes on where there is a text, with what stands before and after it."""
        if column.complete:
            self.text(before)
            self.each(column.texts)
            self.text(after)
        elif not column.empty:
            self.each(_where_there(before, column, after))

    def pairs(self, pairs: Iterable[Pair], between: str) -> None:
        """The pairs that each line has, told apart by `between`."""
        there = [pair for pair in pairs if not pair[1].empty]
        if not there:
            return
        first, *others = there
        if first[1].complete:
            self.pair(*first)
            for before, column, after in others:
                self.pair(between + before, column, after)
        else:
            cells = zip(*(_where_there(*pair) for pair in there), strict=True)
            self.each(map(between.join, map(filter, repeat(None), cells)))

    def group(self, before: str, pairs: Iterable[Pair], after: str) -> None:
        """The pairs that each line has, told apart by commas, and what stands around them.

        Nothing in lines that have none of the pairs.
        """
        there = [pair for pair in pairs if not pair[1].empty]
        if any(column.complete for _, column, _ in there):
            self.text(before)
            self.pairs(there, ",")
            self.text(after)
        elif there:
            inner = Lines(self._count)
            inner.pairs(there, ",")
            self.pair(before, inner.column(), after)

    def objects(self, pairs: Iterable[Pair]) -> Column:
        """For each line a JSON object of the pairs that it has, None where it has none."""
        inner = Lines(self._count)
        inner.group("{", pairs, "}")
        return inner.column()

    def joined(self) -> Iterable[str]:
        """The lines."""
        if self._shared or not self._columns:
            self._columns.append(repeat(self._shared, self._count))
        return map("".join, zip(*self._columns, strict=True))

    def column(self) -> Column:
        """The lines; an empty one is none."""
        if not self._columns and not self._shared:
            return Column([None] * self._count)
        return told(list(self.joined()))

    def encoded(self) -> list[bytes]:
        """The lines in UTF-8."""
        return utf8(self.joined())


def _where_there(before: str, column: Column, after: str = "") -> list[str]:
    return ["" if text is None else f"{before}{text}{after}" for text in column.texts]
