"""Fields of an event as transforms name them: those of `FIELDS`, and `attributes.NAME`."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any, Final

import msgspec
from pydantic import AfterValidator, StrictBool, StrictFloat, StrictInt, WithJsonSchema

from siemrelay.core.event import FIELDS

ATTRIBUTES: Final = "attributes"

_TESTS: Final = frozenset({"any", "not", "min", "max", "present"})
"""The keys of a condition on a field, which in other programs stand around fields."""


def _path(value: str) -> str:
    if value in FIELDS:
        return value
    if value.startswith(f"{ATTRIBUTES}.") and all(value.split(".")):
        return value
    if value in _TESTS:
        raise ValueError(f"`{value}` stands below a field: `outcome: {{{value}: ...}}`")
    meant = get_close_matches(value, FIELDS, 1)
    hint = f"did you mean `{meant[0]}`?" if meant else f"the fields are {', '.join(FIELDS)}"
    raise ValueError(f"unknown event field `{value}`; {hint}; all others are attributes.NAME")


EventPath = Annotated[
    str,
    AfterValidator(_path),
    WithJsonSchema(
        {"type": "string", "anyOf": [{"enum": [*FIELDS]}, {"pattern": r"^attributes\.[^.]"}]}
    ),
]
"""A field of `FIELDS`, or `attributes.NAME`; dots in NAME descend into objects."""

Scalar = StrictBool | StrictInt | StrictFloat | str


def decoded_field(path: str) -> str:
    """The field that a decoder has to fill so that this path can be read."""
    return ATTRIBUTES if path.startswith(f"{ATTRIBUTES}.") else path


def as_text(value: Any) -> str:
    """A value at such a path as text: a text as it is, all else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
