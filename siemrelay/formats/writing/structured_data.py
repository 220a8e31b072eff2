"""`name="value"` pairs as structured data has them (RFC 5424, 6.3.3)."""

from __future__ import annotations

from collections.abc import Iterable

from siemrelay.formats.writing.columns import FieldPairs
from siemrelay.formats.writing.text import replaced, visible


def quoted_pairs(named: Iterable[tuple[str, str]]) -> FieldPairs:
    """Fields of events, each under the name given with it, with a space between."""
    return FieldPairs([(f'{name}="', field, '"') for name, field in named], param_value, " ")


def param_value(value: str) -> str:
    """PARAM-VALUE: `"`, `\\` and `]` have a backslash before them; controls become pictures."""
    value = replaced(replaced(value, "\\", "\\\\"), '"', '\\"')
    return visible(replaced(value, "]", "\\]"))
