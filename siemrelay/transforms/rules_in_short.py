"""The short ways to write the rules of `limit:` and `sample:`: one measure, or one by event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_KEYS: Final = frozenset({"events", "where", "rate", "per", "clock", "one_in"})


def is_rule(written: Mapping[str, Any]) -> bool:
    """Whether a mapping is one rule; else it is `{User Logged In: 100/s}`, by event."""
    return bool(written.keys() & _KEYS)


def listed_rules(value: Any, measure: str) -> Any:
    """A list of rules as it is; for anything else the list that it stands for.

    `measure` is the key of a rule that a lone value means: `rate` or `one_in`.
    """
    if isinstance(value, dict):
        if is_rule(value):
            return [value]
        return [
            {"events": entry, **(rest if isinstance(rest, dict) else {measure: rest})}
            for entry, rest in value.items()
        ]
    return value if isinstance(value, list) else [{measure: value}]
