"""IBM QRadar's Log Event Extended Format, versions 2.0 and 1.0.

`LEEF:2.0|Vendor|Product|Version|EventID|DELIMITER|key=value<DELIMITER>key=value …`; version 1.0 has
no delimiter field, it is always the tab. Rules: IBM's LEEF guide, "LEEF event components" and
"Predefined LEEF event attributes". There is no escaping: what would end a value or a header field
is replaced, a control character by its picture and a printable one by its full-width form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field

from siemrelay.core.event import AuditEvent, Selection
from siemrelay.core.memo import BoundedMemo
from siemrelay.formats.contract import FormatKind
from siemrelay.formats.field_map import DeviceOptions, fields_read, mapped_keys
from siemrelay.formats.writing.address import are_ip, is_ip
from siemrelay.formats.writing.columns import (
    FEW_EVENTS,
    Column,
    FieldPairs,
    Lines,
    Pair,
    nonempty,
)
from siemrelay.formats.writing.epoch import MILLISECOND_CHARACTERS, with_milliseconds
from siemrelay.formats.writing.text import CONTROL_PICTURES, replaced, visible

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
    """The options of a sink with LEEF 1.0 messages."""


class LeefOptions(DeviceOptions):
    """The options of a sink with LEEF 2.0 messages."""

    delimiter: Annotated[str, BeforeValidator(_delimiter)] = Field(
        "tab",
        validate_default=True,
        description="between attributes: one character, its code as xHH, or `tab`",
    )


def _dev_time(time: str) -> str:
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

_SEVERITIES: Final[dict[int | None, str]] = {
    level: str(level or 1)  # 1 to 10 here
    for level in (None, *range(11))
}

_DERIVED: Final = {
    "devTime": "time", "devTimeFormat": "time", "sev": "severity", "src": "actor.address",
    "identHostName": "actor.address",
}  # fmt: skip
"""Keys whose value is derived from a field, and that field."""

_PLAIN: Final = {
    "cat": "category", "usrName": "actor.name", "resource": "target.name",
    # The guide has no keys for these: they are custom ones.
    "externalId": "id", "outcome": "outcome", "usrId": "actor.id",
    "resourceType": "target.type", "resourceId": "target.id", "msg": "message",
}  # fmt: skip
"""Keys that carry a field as it is."""

_FULL_WIDTH: Final = 0xFEE0
"""From a printable ASCII character to its full-width form, which looks alike and means nothing."""


def substitute_for(character: str) -> str:
    """The substitute for a character that a value may not hold."""
    code = ord(character)
    return chr(CONTROL_PICTURES.get(code, code + _FULL_WIDTH))


class Leef:
    """Events → LEEF lines, a key of all of them at a time."""

    members = None

    def __init__(self, options: DeviceOptions, version: Literal["1.0", "2.0"]) -> None:
        delimiter = options.delimiter if isinstance(options, LeefOptions) else "\t"
        self._delimiter, self._instead = delimiter, substitute_for(delimiter)
        written = delimiter if delimiter.isprintable() else f"x{ord(delimiter):02X}"
        self._end = f"|{written}|" if version == "2.0" else "|"
        self._start = f"LEEF:{version}|" + "".join(
            _header(part) + "|" for part in (options.vendor, options.product, options.version)
        )
        self._heads = BoundedMemo(self._head)
        plain = mapped_keys(_PLAIN, options.map, last="msg")
        derived = {key: field for key, field in _DERIVED.items() if key not in options.map}
        self.fields = fields_read({"type", *plain.values(), *derived.values()})
        self._derived = derived
        pairs = [(f"{key}=", field, "") for key, field in plain.items()]
        self._plain = FieldPairs(pairs, self._value, delimiter)

    def _head(self, kind: str) -> str:
        return f"{self._start}{_header(kind)}{self._end}"

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`; the delimiter is the one control character left."""
        if len(selection) <= FEW_EVENTS:
            number = selection.number
            return [self._line(event, number).encode() for event in selection.events]
        lines = Lines(len(selection))
        lines.each(map(self._heads.__getitem__, selection.column("type")))
        lines.pairs(self._columns(selection), self._delimiter)
        return lines.encoded()

    def _line(self, event: AuditEvent, number: str | None) -> str:
        """One event's line: what the columns are for many, in a few steps."""
        derived = self._derived
        pairs = [f"siemrelayN={number}"] if number else []
        if "devTime" in derived:
            pairs.append(f"devTime={_dev_time(event.time or '')}")
        if "devTimeFormat" in derived:
            pairs.append(f"devTimeFormat={_DEV_TIME_FORMAT}")
        if "sev" in derived:
            pairs.append(f"sev={_SEVERITIES[event.severity]}")
        if address := event.actor.address:
            key = "src" if is_ip(address) else "identHostName"
            if key in derived:
                pairs.append(f"{key}={self._value(address)}")
        if plain := self._plain.alone(event):
            pairs.append(plain)
        return self._heads[event.type] + self._delimiter.join(pairs)

    def _columns(self, selection: Selection) -> Iterator[Pair]:
        derived = self._derived
        if selection.number:
            yield "siemrelayN=", Column([selection.number] * len(selection)), ""
        if "devTime" in derived:
            times = selection.column("time")
            if not with_milliseconds(times):
                times = list(map(_dev_time, times))
            yield "devTime=", Column(times), ""
        if "devTimeFormat" in derived:
            yield "devTimeFormat=", Column([_DEV_TIME_FORMAT] * len(selection)), ""
        if "sev" in derived:
            severities = list(map(_SEVERITIES.__getitem__, selection.column("severity")))
            yield "sev=", Column(severities), ""
        if "src" in derived or "identHostName" in derived:
            addresses = nonempty(selection.column("actor.address"))
            typed, shown = addresses.map_present(are_ip), addresses.escaped(self._value)
            for key, wanted in (("src", True), ("identHostName", False)):
                if key in derived:
                    yield f"{key}=", shown.where(typed, wanted), ""
        yield from self._plain.of(selection)

    def _value(self, text: str) -> str:
        return visible(replaced(text, self._delimiter, self._instead))


def _header(text: str) -> str:
    return visible(text.replace("|", substitute_for("|")))


LEEF: Final = FormatKind(
    LeefOptions, lambda options, host: Leef(options, "2.0"),
    "QRadar's Log Event Extended Format 2.0", header="rfc3164", headers=True, maps=True, tag=False,
    numbered=True,
)  # fmt: skip

LEEF1: Final = FormatKind(
    Leef1Options, lambda options, host: Leef(options, "1.0"),
    "QRadar's Log Event Extended Format 1.0", header="rfc3164", headers=True, maps=True, tag=False,
    numbered=True,
)  # fmt: skip
