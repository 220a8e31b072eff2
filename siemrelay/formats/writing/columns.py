"""Messages of many events, written column by column, so that the loops over events run in C.

A column has one part of every message, for example all ids. `Lines` puts columns and the texts
between them together. Two events, written as `id=…[ user=…]`:

    lines = Lines(2)
    lines.text("id=")                                  # the same in every line
    lines.each(["1", "2"])                             # a text for each line
    lines.pair(" user=", Column(["ada", None]))        # nothing where there is no text
    lines.encoded()                                    # [b"id=1 user=ada", b"id=2"]

Measured: a batch of 1,000 takes 1.5 to 2.5 µs an event, a lone event 30 to 50 µs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any, Final, TypeVar

from siemrelay.core.event import FIELDS, Selection
from siemrelay.formats.writing.text import text_of, utf8

# Printable ASCII that texts seldom have. Texts that have it are escaped one by one.
_BETWEEN: Final = "`"

Value = TypeVar("Value")


class Column:
    """One part of every message, in the order of the events: a text, or None where it is absent."""

    __slots__ = ("complete", "empty", "texts")

    def __init__(self, texts: Sequence[Any]) -> None:
        self.texts = texts
        self.complete = all(texts) or None not in texts
        """Whether every event has a text."""
        self.empty = not self.complete and texts.count(None) == len(texts)
        """Whether no event has one."""

    def with_texts(self, texts: Sequence[Any]) -> Column:
        """Other texts for the same events."""
        column = Column.__new__(Column)
        column.texts, column.complete, column.empty = texts, self.complete, self.empty
        return column

    def or_else(self, other: Column) -> Column:
        """With the other column's text for each event that has none."""
        if self.complete or other.empty:
            return self
        if self.empty:
            return other
        return Column([
            rest if text is None else text
            for text, rest in zip(self.texts, other.texts, strict=True)
        ])  # fmt: skip

    def map_present(
        self, function: Callable[[Sequence[str]], Sequence[Value]]
    ) -> Sequence[Value | None]:
        """`function` of the texts that are present, its values in their places."""
        if self.complete:
            return function(self.texts)
        if self.empty:
            return self.texts
        values = iter(function([text for text in self.texts if text is not None]))
        return [None if text is None else next(values) for text in self.texts]

    def escaped(self, escape: Callable[[str], str]) -> Column:
        """`escape` of every text, called once for all of them where possible.

        `escape` must treat each character by itself, and return the very same object if it changes
        nothing.
        """

        def escaped(texts: Sequence[str]) -> Sequence[str]:
            joined = _BETWEEN.join(texts)
            changed = escape(joined)
            if changed is joined:
                return texts
            cells = changed.split(_BETWEEN)
            return cells if len(cells) == len(texts) else list(map(escape, texts))

        return self.with_texts(self.map_present(escaped))

    def where(self, kinds: Sequence[Any], wanted: Any) -> Column:
        """The texts of events of the wanted kind, None elsewhere."""
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


def nonempty(values: Sequence[Any]) -> Column:
    """A column of texts, in which an empty one counts as absent."""
    if all(values):
        return Column(values)
    return Column([text or None for text in values] if any(values) else [None] * len(values))


def put(column: list[str | None], places: Sequence[int], texts: Sequence[str | None]) -> None:
    """Set the texts of some events in the column that is made of all events."""
    for place, text in zip(places, texts, strict=True):
        column[place] = text


def field_column(selection: Selection, field: str) -> Column:
    """A field of every event as text (`text_of`), in which an empty one counts as absent."""
    values = selection.column(field)
    if field == "severity":
        return Column(list(map(_SEVERITIES.__getitem__, values)))
    if field in FIELDS:
        return nonempty(values)
    return nonempty([None if value is None else text_of(value) for value in values])


_SEVERITIES: Final = {
    severity: None if severity is None else str(severity) for severity in (None, *range(11))
}

Pair = tuple[str, Column, str]
"""A column with the texts that stand before and after each of its texts."""


class Lines:
    """One line an event, written from the left: texts that all lines share, and columns."""

    def __init__(self, count: int) -> None:
        self._count, self._columns, self._shared = count, list[Iterable[str]](), ""

    def text(self, text: str) -> None:
        """Appends the same text to every line."""
        self._shared += text

    def each(self, texts: Iterable[str]) -> None:
        """Appends to each line its own text."""
        if self._shared:
            self._columns.append(repeat(self._shared, self._count))
            self._shared = ""
        self._columns.append(texts)

    def pair(self, before: str, column: Column, after: str = "") -> None:
        """Appends a column with the texts around it, where it is present."""
        if column.complete:
            self.text(before)
            self.each(column.texts)
            self.text(after)
        elif not column.empty:
            self.each(_where_present(before, column, after))

    def pairs(self, pairs: Iterable[Pair], between: str) -> None:
        """Appends the pairs that are present, with `between` between them."""
        present = [pair for pair in pairs if not pair[1].empty]
        if not present:
            return
        first, *others = present
        if first[1].complete:
            self.pair(*first)
            for before, column, after in others:
                self.pair(between + before, column, after)
        else:
            cells = zip(*(_where_present(*pair) for pair in present), strict=True)
            self.each(map(between.join, map(filter, repeat(None), cells)))

    def group(self, before: str, pairs: Iterable[Pair], after: str) -> None:
        """Appends the pairs that are present, with commas between and the texts around them.

        A line that has none of the pairs stays as it is.
        """
        present = [pair for pair in pairs if not pair[1].empty]
        if any(column.complete for _, column, _ in present):
            self.text(before)
            self.pairs(present, ",")
            self.text(after)
        elif present:
            inner = Lines(self._count)
            inner.pairs(present, ",")
            self.pair(before, inner.column(), after)

    def objects(self, pairs: Iterable[Pair]) -> Column:
        """A JSON object for each line, of the pairs that are present; None if there is none."""
        inner = Lines(self._count)
        inner.group("{", pairs, "}")
        return inner.column()

    def joined(self) -> Iterable[str]:
        """The lines."""
        if self._shared or not self._columns:
            self._columns.append(repeat(self._shared, self._count))
        return map("".join, zip(*self._columns, strict=True))

    def column(self) -> Column:
        """The lines, in which an empty one counts as absent."""
        if not self._columns and not self._shared:
            return Column([None] * self._count)
        return nonempty(list(self.joined()))

    def encoded(self) -> list[bytes]:
        """The lines in UTF-8."""
        return utf8(self.joined())


def _where_present(before: str, column: Column, after: str = "") -> list[str]:
    return ["" if text is None else f"{before}{text}{after}" for text in column.texts]
