"""`name="value"` pairs as structured data has them (RFC 5424, 6.3.3)."""

from __future__ import annotations

from collections.abc import Sequence

from siemrelay.core.event import Selection
from siemrelay.formats.writing.columns import FieldColumns, Pair
from siemrelay.formats.writing.text import replaced, visible


class QuotedPairs:
    """Fields of events, each under a name; made once for a format."""

    def __init__(self, named: Sequence[tuple[str, str]]) -> None:
        """`named` has the names with the field of each."""
        self._before = [f'{name}="' for name, _ in named]
        self._columns = FieldColumns([field for _, field in named], param_value)

    def of(self, selection: Selection) -> list[Pair]:
        """The pairs of every event."""
        columns = self._columns.of(selection)
        return [(before, column, '"') for before, column in zip(self._before, columns, strict=True)]


def param_value(value: str) -> str:
    """PARAM-VALUE: `"`, `\\` and `]` have a backslash before them; controls become pictures."""
    value = replaced(replaced(value, "\\", "\\\\"), '"', '\\"')
    return visible(replaced(value, "]", "\\]"))
