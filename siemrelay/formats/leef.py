"""IBM QRadar's Log Event Extended Format, versions 2.0 and 1.0.

`LEEF:2.0|Vendor|Product|Version|EventID|DELIMITER|key=value<DELIMITER>key=value …`; version 1.0 has
no delimiter field, it is always the tab. Rules: IBM's LEEF guide, "LEEF event components" and
"Predefined LEEF event attributes". There is no escaping: what would end a value or a header field
is replaced, a control character by its picture and a printable one by its full-width form.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from operator import attrgetter
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field

from siemrelay.event import AuditEvent, Selection, field_getter
from siemrelay.formats.address import dotted_quad, is_ip
from siemrelay.formats.contract import FormatKind
from siemrelay.formats.epoch import MILLISECOND_CHARACTERS
from siemrelay.formats.mapped import DeviceOptions
from siemrelay.formats.pairs import Pairs
from siemrelay.formats.remembered import Remembered
from siemrelay.formats.text import CONTROL_PICTURES, one_line_each, text_of, utf8

_HEX: Final = re.compile(r"(?:0x|x)([0-9A-Fa-f]{2})")
# Also in keys, times, numbers and addresses, where nothing may be replaced; the first two have a
# meaning of their own.
_NO_DELIMITERS: Final = frozenset("=| _.:-+'%\0\n\r\x7f")


def _delimiter(value: Any) -> Any:
    if value == "tab":
        return "\t"
    if not isinstance(value, str):
        return value
    match = _HEX.fullmatch(value)
    character = chr(int(match[1], 16)) if match else value
    if len(character) != 1 or not character.isascii():
        raise ValueError("write one ASCII character like ^, or its code like x5E; tab is x09")
    if character.isalnum() or character in _NO_DELIMITERS:
        raise ValueError(f"{character!r} would stand in keys and values too; take ^, tab or x01")
    return character


class Leef1Options(DeviceOptions):
    """What a LEEF 1.0 sink may set."""


class LeefOptions(DeviceOptions):
    """What a LEEF 2.0 sink may set."""

    delimiter: Annotated[str, BeforeValidator(_delimiter)] = Field(
        "\t",
        description="between attributes: one character, or its code as xHH; the tab by default",
    )


def _dev_time(event: AuditEvent) -> str:
    time = event.time or ""
    if len(time) == MILLISECOND_CHARACTERS and time[-1] == "Z":
        return time
    moment = datetime.fromisoformat(time)
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:  # the year 1 or 9999 at the edge of a zone
        moment = moment.replace(tzinfo=UTC)
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


# Java's SimpleDateFormat; X takes the `Z` of UTC.
_DEV_TIME_FORMAT: Final = "yyyy-MM-dd'T'HH:mm:ss.SSSX"


def _sev(event: AuditEvent) -> str:
    return str(event.severity or 1)  # 1 to 10 here


def _src(event: AuditEvent) -> str | None:
    address = event.actor.address
    return address if address and is_ip(address) else None


def _ident_host_name(event: AuditEvent) -> str | None:
    address = event.actor.address
    return address if address and not is_ip(address) else None


_DERIVED: Final[dict[str, tuple[str, Callable[[AuditEvent], str | None]]]] = {
    "devTime": ("time", _dev_time),
    "devTimeFormat": ("time", lambda event: _DEV_TIME_FORMAT),
    "sev": ("severity", _sev),
    "src": ("actor.address", _src),
    "identHostName": ("actor.address", _ident_host_name),
}
"""Keys whose value is worked out: the field it comes from, and how."""

_PLAIN: Final = {
    "cat": "category", "usrName": "actor.name", "resource": "target.name",
    # The guide has no keys for these: they are custom ones.
    "externalId": "id", "outcome": "outcome", "usrId": "actor.id",
    "resourceType": "target.type", "resourceId": "target.id", "msg": "message",
}  # fmt: skip
"""Keys that carry a field as it is. `msg` comes last: what cuts a message cuts its text first."""

_FULL_WIDTH: Final = 0xFEE0
"""From a printable ASCII character to its full-width form, which looks alike and means nothing."""


def shown_instead(character: str) -> str:
    """What stands for a character that a value may not hold."""
    code = ord(character)
    return chr(CONTROL_PICTURES.get(code, code + _FULL_WIDTH))


class Leef:
    """Events → LEEF lines.

    Two ways to the same text (test_the_fast_leef_line_equals_the_careful_one): one `%` over all the
    values, kept if counting delimiters proves that no value has one; else key by key.
    """

    def __init__(self, options: DeviceOptions, version: Literal["1.0", "2.0"]) -> None:
        delimiter = options.delimiter if isinstance(options, LeefOptions) else "\t"
        self._delimiter, self._instead = delimiter, shown_instead(delimiter)
        written = delimiter if delimiter.isprintable() else f"x{ord(delimiter):02X}"
        self._end = f"|{written}|" if version == "2.0" else "|"
        self._start = f"LEEF:{version}|" + "".join(
            _header(part) + "|" for part in (options.vendor, options.product, options.version)
        )
        self._heads = Remembered(self._head)
        derived = {key: made for key, made in _DERIVED.items() if key not in options.map}
        plain = {key: field for key, field in _PLAIN.items() if key not in options.map}
        plain |= {key: field for key, field in options.map.items() if field is not None}
        if "msg" in plain:
            plain["msg"] = plain.pop("msg")
        fields = {*plain.values(), *(field for field, _ in derived.values())}
        self.fields = frozenset(
            {"attributes" if field.startswith("attributes.") else field for field in fields}
            | {"type"}
        )
        self._as_built_in = derived == _DERIVED
        self._after_time = delimiter.join(["", f"devTimeFormat={_DEV_TIME_FORMAT}", "sev="])
        self._derived = [(f"{key}=", get) for key, (_, get) in derived.items()]
        self._getters = [(key, field_getter(field)) for key, field in plain.items()]
        self._pairs = Pairs(plain, "{name}=%s", delimiter)
        simple = not any(field.startswith("attributes.") for field in plain.values())
        # Two fields at least, or attrgetter gives the value itself instead of a tuple.
        self._get = attrgetter(*plain.values()) if simple and len(plain) > 1 else None

    def _head(self, kind: str) -> str:
        return f"{self._start}{_header(kind)}{self._end}"

    def _fast(self, event: AuditEvent) -> str | None:
        """The attributes if no value has the delimiter, else None."""
        if self._get is None:
            return None
        text, pairs = self._pairs.fill(self._get(event))
        delimiter, address, time = self._delimiter, event.actor.address, event.time or ""
        if not pairs or text.count(delimiter) != pairs - 1:
            return None
        if not self._as_built_in or not address or not dotted_quad(address):
            return delimiter.join([*self._worked_out(event), text])
        if len(time) != MILLISECOND_CHARACTERS or time[-1] != "Z":
            time = _dev_time(event)
        return (
            f"devTime={time}{self._after_time}{event.severity or 1}"
            f"{delimiter}src={address}{delimiter}{text}"
        )

    def _careful(self, event: AuditEvent) -> str:
        plain = ((key, get(event)) for key, get in self._getters)
        return self._delimiter.join([
            *self._worked_out(event),
            *(
                f"{key}={self._value(text_of(value))}"
                for key, value in plain
                if value is not None and value != ""
            ),
        ])  # fmt: skip

    def _worked_out(self, event: AuditEvent) -> list[str]:
        return [key + self._value(said) for key, get in self._derived if (said := get(event))]

    def _value(self, text: str) -> str:
        return text.replace(self._delimiter, self._instead)

    def _line(self, event: AuditEvent) -> str:
        return self._heads[event.type] + (self._fast(event) or self._careful(event))

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`; the delimiter is the one control character left."""
        return one_line_each(utf8(map(self._line, selection.events)), self._delimiter)


def _header(text: str) -> str:
    return text.replace("|", shown_instead("|")).translate(CONTROL_PICTURES)


LEEF: Final = FormatKind(
    LeefOptions, lambda options, host: Leef(options, "2.0"),
    "QRadar's Log Event Extended Format 2.0", header="rfc3164", headers=True, tag=False,
)  # fmt: skip

LEEF1: Final = FormatKind(
    Leef1Options, lambda options, host: Leef(options, "1.0"),
    "QRadar's Log Event Extended Format 1.0", header="rfc3164", headers=True, tag=False,
)  # fmt: skip
