"""The parts of options models: the strict base class, and types of values with units.

A part's options are a pydantic model beside the part; the registry joins them, the configuration
loader fills them, `config/reference.md` is generated from them. Units in the file are text
(`500ms`, `10GiB`), in the models seconds and bytes.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import SplitResult

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import core_schema

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BYTES = {
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*")


class Options(BaseModel):
    """Base of every options model: unknown keys are faults, values do not change once read."""

    # A start builds the validators of the parts that it has, and not those of their bases as well.
    model_config = ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, defer_build=True
    )


def formerly(*names: str) -> dict[str, Any]:
    """For `json_schema_extra` of a renamed option: the old names are answered with the new one."""
    return {"formerly": names}


_UNITS_ELSEWHERE: Final = {
    **dict.fromkeys(("sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("day", "days"), "d"), **dict.fromkeys(("week", "weeks"), "w"),
    **dict.fromkeys(("msec", "millis"), "ms"), **dict.fromkeys(("byte", "bytes", "b"), "B"),
    **{form: f"{prefix}iB" for prefix in "KMGT"
       for form in (prefix.casefold(), f"{prefix}i".casefold(), f"{prefix}ib".casefold())},
    **{f"{prefix}b".casefold(): f"{prefix}B" for prefix in "KMGT"},
}  # fmt: skip
"""Units of other programs, in lower case, and those of this one; `K` is 1024, as in systemd."""


def _quantity(value: Any, units: dict[str, float] | dict[str, int], example: str) -> float:
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    if plain and value == 0:
        return 0.0
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        if plain or (
            isinstance(value, str) and value.strip().isascii() and value.strip().isdigit()
        ):
            number = str(value).strip()
            *some, last = (f"{number}{unit}" for unit in _BARE[units is _BYTES])
            raise ValueError(f"a number needs a unit: write {', '.join(some)} or {last}")
        raise ValueError(f"write a number and a unit, like {example}")
    number, unit = match.groups()
    if unit not in units:
        meant = _UNITS_ELSEWHERE.get(unit.casefold())
        advice = f"write {number}{meant}" if meant in units else f"the units are {', '.join(units)}"
        raise ValueError(f"unknown unit {unit!r}; {advice}")
    return float(number) * units[unit]


_BARE: Final = (("s", "h"), ("B", "KiB", "MiB"))
"""The units offered for a number without one: of time, of size."""


URL_PASSWORD: Final = re.compile(
    r"(?<=://)(?P<user>[^/\s:@]*):(?P<password>(?!PASSWORD@)[^/\s@]+)(?=@)"
)
"""The password in `https://user:password@host/`, if it is not the word that stands for one."""


def listed(value: Any) -> Any:
    """A text as the list of it, all else as it is."""
    return [value] if isinstance(value, str) else value


def one_or_more(item: Any) -> BeforeValidator:
    """Lets a list of these texts that has one entry be written as that."""
    return BeforeValidator(listed, json_schema_input_type=item | list[item])


def seconds(value: Any) -> float:
    """`500ms`, `10s`, `24h` → seconds; 0 needs no unit. Raises ValueError with an example."""
    return _quantity(value, _SECONDS, "500ms, 10s or 24h")


def size_bytes(value: Any) -> int:
    """`64KiB`, `10GiB` → bytes; 0 needs no unit. Raises ValueError with an example."""
    return int(_quantity(value, _BYTES, "64KiB or 10GiB"))


def show_seconds(value: float) -> str:
    """The shortest text that `seconds` reads back as the same value."""
    for unit in ("w", "d", "h", "m", "s"):
        if value >= _SECONDS[unit] and value % _SECONDS[unit] == 0:
            return f"{int(value // _SECONDS[unit])}{unit}"
    return f"{value * 1000:g}ms" if value else "0s"


def show_bytes(value: int) -> str:
    """The shortest text that `size_bytes` reads back as the same value."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if value >= _BYTES[unit] and value % _BYTES[unit] == 0:
            return f"{value // _BYTES[unit]}{unit}"
    return f"{value}B"


Duration = Annotated[
    float, BeforeValidator(seconds), WithJsonSchema({"type": "string", "format": "duration"})
]
"""Seconds; written with a unit."""

Timeout = Annotated[Duration, Field(gt=0, le=300)]
"""How long a part waits for its peer. A part that is silent for longer counts as stuck, and the
watchdog restarts the relay (`telemetry.health`; checked by
test_no_part_waits_for_its_peer_until_it_counts_as_stuck)."""

Size = Annotated[
    int, BeforeValidator(size_bytes), WithJsonSchema({"type": "string", "format": "size"})
]
"""Bytes; written with a unit."""

_Location = TypeVar("_Location")


def absolute(value: _Location) -> _Location:
    """`value` itself, a path in whatever type; raises ValueError if it is relative.

    A service and a person in a shell would mean two different files by it.
    """
    if not str(value).startswith("/"):
        raise ValueError("write an absolute path, one that begins with /")
    return value


def with_good_port(parts: SplitResult) -> SplitResult:
    """`parts` themselves; raises ValueError if the address has a port that no port can be."""
    try:
        good = parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ValueError("the port in the address must be from 1 to 65535")
    return parts


Port = Annotated[int, Field(ge=1, le=65535)]

NonEmpty = Annotated[str, Field(min_length=1)]
"""A text that is not empty."""


UNREAD_CREDENTIAL: Final = "unread-credential"
"""In place of a credential that was not read, and need not be: nothing that one stands for is
shorter."""


class Secret(str):
    """A text that is never shown: what prints options, errors or logs writes `***` for it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return core_schema.no_info_after_validator_function(
            cls._not_blank, core_schema.str_schema(min_length=1)
        )

    @classmethod
    def _not_blank(cls, value: str) -> Secret:
        if not value.strip():
            raise ValueError("must not be blank")
        return cls(value)


_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Visible ASCII, spaces and tabs only in between: other bytes are read by each receiver as it likes.
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?")


def is_header_value(text: str) -> bool:
    """Whether an HTTP header can carry that text (RFC 9110, 5.5)."""
    return _HEADER_VALUE.fullmatch(text) is not None


def _header_name(value: str) -> str:
    if not _HEADER_NAME.fullmatch(value):
        raise ValueError("write a header's name: ASCII letters, digits and `-`, without spaces")
    return value


def _header_value(value: Secret) -> Secret:
    if is_header_value(value):
        return value
    if "\n" in value.strip() or "\r" in value.strip():
        what = "has a line break in it; write it as one line"
    elif value != value.strip():
        what = "begins or ends with a space or a line break; leave that out"
    else:
        place = next(i for i, c in enumerate(value, 1) if c != "\t" and not " " <= c <= "~")
        what = f"has something other than visible ASCII at character {place}; take that out"
    # The fault, and never the value.
    raise ValueError(f"a header cannot carry this text: it {what}")


HeaderName = Annotated[str, AfterValidator(_header_name)]
"""The name of an HTTP header (RFC 9110, 5.1)."""

HeaderValue = Annotated[Secret, AfterValidator(_header_value)]
"""A secret that an HTTP header can carry as it is."""

# Headers that say what a request is about. Every other one may be a credential.
_NO_CREDENTIALS: Final = frozenset({
    "accept", "accept-language", "content-type", "prefer", "user-agent", "x-github-api-version",
    "x-scope-orgid", "x-sumo-category", "x-sumo-fields", "x-sumo-host", "x-sumo-name",
})  # fmt: skip


def _plain_ones_shown(headers: dict[str, Secret]) -> dict[str, str]:
    return {
        name: str(value) if name.lower() in _NO_CREDENTIALS else value
        for name, value in headers.items()
    }


_Name = TypeVar("_Name", bound=str)
Headers = Annotated[dict[_Name, HeaderValue], AfterValidator(_plain_ones_shown)]
"""Headers of a request; a value is a secret unless the name says that it is none."""
