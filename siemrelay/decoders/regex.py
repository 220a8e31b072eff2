"""Records of any text, taken apart by a pattern with named groups."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from siemrelay.core.event import FIELDS
from siemrelay.core.event_types import Catalogue
from siemrelay.core.patterns import LinearPattern, Pattern
from siemrelay.decoders.contract import (
    MAX_TIME_AHEAD_S,
    MAX_TIME_PAST_S,
    Decoder,
    DecoderKind,
    ZonedOptions,
)
from siemrelay.decoders.field_records import FieldsDecoder
from siemrelay.decoders.fields import Spellings
from siemrelay.decoders.times import zone_of

_ALL: Final = r"(?s)(?P<message>.*)"

_FIELDS: Final = {field.replace(".", "_"): field for field in FIELDS if "." in field}
"""A group's name has no dots: `actor_name` is `actor.name`."""


def _with_names(written: str) -> str:
    if not LinearPattern(written).names:
        raise ValueError("it has no named group: write the values' names, as in (?P<user>\\S+)")
    return written


class RegexOptions(ZonedOptions):
    """Settings of the decoder `regex`."""

    pattern: Annotated[Pattern, AfterValidator(_with_names)] = Field(
        description="a pattern (RE2) that matches a record from its beginning to its end, with a "
        "named group for each value: `(?P<time>\\S+) (?P<actor_name>\\S+) (?P<message>.*)`. Groups "
        "are named as the event's fields, with `_` for the dot, or as `fields` says; others become "
        "attributes. It needs the extra `regex`"
    )


def _built(
    spellings: Spellings, wanted: frozenset[str], catalogue: Catalogue, pattern: str = _ALL,
    timezone: str = "UTC",
    max_time_past: float = MAX_TIME_PAST_S, max_time_ahead: float = MAX_TIME_AHEAD_S,
) -> Decoder:  # fmt: skip
    compiled = LinearPattern(pattern)

    def read(text: str) -> dict[str, Any] | None:
        groups = compiled.groups(text)
        return groups and {_FIELDS.get(name, name): value for name, value in groups.items()}

    return FieldsDecoder(
        read, spellings, wanted, catalogue, max_time_past, max_time_ahead, zone_of(timezone)
    )


REGEX: Final = DecoderKind(
    RegexOptions, _built, "text that a pattern with named groups takes apart, in linear time",
    why=lambda record: "the pattern does not match it from its beginning to its end",
)  # fmt: skip
