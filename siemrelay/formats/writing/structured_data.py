"""`name="value"` pairs as structured data has them (RFC 5424, 6.3.3)."""

from __future__ import annotations

from collections.abc import Iterable

from siemrelay.core.event import Selection
from siemrelay.formats.writing.columns import Pair, field_column
from siemrelay.formats.writing.text import replaced, visible


def quoted_pairs(selection: Selection, fields: Iterable[str]) -> list[Pair]:
    """The fields of every event, each under its own name."""
    return [
        (f'{field}="', field_column(selection, field).escaped(param_value), '"') for field in fields
    ]


def param_value(value: str) -> str:
    """PARAM-VALUE: `"`, `\\` and `]` have a backslash before them; controls become pictures."""
    value = replaced(replaced(value, "\\", "\\\\"), '"', '\\"')
    return visible(replaced(value, "]", "\\]"))
