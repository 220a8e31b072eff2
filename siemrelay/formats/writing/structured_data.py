"""`name="value"` pairs as structured data has them (RFC 5424, 6.3.3)."""

from __future__ import annotations

from collections.abc import Iterable

from siemrelay.core.event import Selection
from siemrelay.formats.writing.columns import Pair, field_column
from siemrelay.formats.writing.text import replaced, visible


def quoted_pairs(selection: Selection, named: Iterable[tuple[str, str]]) -> list[Pair]:
    """The fields of every event, each under the name given with it."""
    return [
        (f'{name}="', field_column(selection, field).escaped(param_value), '"')
        for name, field in named
    ]


def param_value(value: str) -> str:
    """PARAM-VALUE: `"`, `\\` and `]` have a backslash before them; controls become pictures."""
    value = replaced(replaced(value, "\\", "\\\\"), '"', '\\"')
    return visible(replaced(value, "]", "\\]"))
