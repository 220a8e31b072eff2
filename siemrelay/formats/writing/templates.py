"""`name=value` texts by `%` templates: one for each combination of values that events lack."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from siemrelay.core.event import Selection
from siemrelay.formats.writing.columns import Lines, texts
from siemrelay.formats.writing.text import replaced, visible

# A source's events lack few different combinations; ill-meant ones may not fill the memory.
_TEMPLATES_KEPT: Final = 512


class Pairs:
    """Fills in values that need no escaping; who calls proves afterwards that none did."""

    def __init__(self, names: Iterable[str], form: str, between: str = " ") -> None:
        """`form` makes a pair of a name: `{name}=%s`; `between` tells pairs apart."""
        # In a template `%` stands for itself only when doubled.
        self._between = between.replace("%", "%%")
        self._forms = [form.format(name=name) for name in names]
        self.template = self._between.join(self._forms)
        """For values that are all there; `fill` takes any."""
        self._some: dict[tuple[bool, ...], str] = {}

    def fill(self, values: tuple[Any, ...]) -> tuple[str, int]:
        """The pairs of the values that are there (neither None nor empty), and how many."""
        if None not in values and "" not in values:
            return self.template % values, len(values)
        there = tuple([value is not None and value != "" for value in values])
        form = self._some.get(there)
        if form is None:
            form = self._learned(there)
        present = tuple([value for value in values if value is not None and value != ""])
        return form % present, len(present)

    def _learned(self, there: tuple[bool, ...]) -> str:
        if len(self._some) >= _TEMPLATES_KEPT:
            self._some.clear()
        chosen = [form for form, is_there in zip(self._forms, there, strict=True) if is_there]
        form = self._some[there] = self._between.join(chosen)
        return form


class QuotedPairs:
    """`name="value"` pairs as structured data has them (RFC 5424, 6.3.3)."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._pairs = Pairs(names, '{name}="%s"')

    def fill(self, values: tuple[Any, ...]) -> str:
        """The pairs of the values that are there, escaped."""
        text, count = self._pairs.fill(values)
        if needs_no_escape(text, count):
            return text
        return " ".join(
            f'{name}="{escaped(str(value))}"'
            for name, value in zip(self._names, values, strict=True)
            if value is not None and value != ""
        )

    def put(self, lines: Lines, selection: Selection) -> None:
        """The pairs of many events, with what `fill` leaves to whom it gives them: controls."""
        lines.pairs([
            (f'{name}="', texts(selection, name).escaped(shown), '"') for name in self._names
        ], " ")  # fmt: skip


def shown(value: str) -> str:
    """`escaped`, with control characters as their pictures."""
    return visible(escaped(value))


def needs_no_escape(text: str, pairs: int) -> bool:
    """Whether the values in so many quoted pairs have nothing that structured data escapes."""
    # As many quotes as the pairs have themselves: no value has one.
    return text.count('"') == 2 * pairs and "\\" not in text and "]" not in text


def escaped(value: str) -> str:
    """PARAM-VALUE: exactly `"`, `\\` and `]` are escaped (RFC 5424, 6.3.3)."""
    value = replaced(replaced(value, "\\", "\\\\"), '"', '\\"')
    return replaced(value, "]", "\\]")
