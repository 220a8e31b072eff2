"""ArcSight's Common Event Format, `CEF:0|Vendor|Product|Version|Type|Name|Severity|key=value …`.

Rules: ArcSight CEF implementation standard, revision 26. In the header `\\` and `|` are escaped, in
values `\\` and `=`; a line break in a value becomes the two characters `\\n` or `\\r`, and in the
header, where there is no escape for it, its picture.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import attrgetter
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from siemrelay.event import FIELDS, AuditEvent, Selection, field_getter
from siemrelay.formats.syslog_header import HeaderOptions
from siemrelay.formats.text import CONTROL_PICTURES, text_of, utf8
from siemrelay.times import epoch_ms

_KEY: Final = re.compile(r"[A-Za-z0-9_]+")


def _extension_map(value: dict[str, str | None]) -> dict[str, str | None]:
    for key, field in value.items():
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no CEF key: letters, digits and _ only")
        if field is not None and field not in FIELDS and not field.startswith("attributes."):
            raise ValueError(f"{key}: {field!r} is no event field; the fields are "
                             f"{', '.join(FIELDS)} and attributes.NAME")  # fmt: skip
    return value


class CefOptions(HeaderOptions):
    """What a CEF sink may set."""

    vendor: str = Field("siemrelay", min_length=1, description="the header's device vendor")
    product: str = Field("audit", min_length=1, description="the header's device product")
    version: str = Field("1.0", min_length=1, description="the header's device version")
    map: Annotated[dict[str, str | None], AfterValidator(_extension_map)] = Field(
        default_factory=dict,
        description="extension keys to add or replace, each with the event field it takes "
        "(`suser: actor.name`); null leaves a key out",
    )


def _header(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").translate(CONTROL_PICTURES)


_BREAKS: Final = {**CONTROL_PICTURES, 0x09: "\t", 0x0A: "\\n", 0x0D: "\\r"}


def _value(text: str) -> str:
    text = text.replace("\\", "\\\\").replace("=", "\\=")
    return text if text.isprintable() else text.translate(_BREAKS)


def _rt(event: AuditEvent) -> str:
    return str(epoch_ms(event.time or ""))


def _ipv4(event: AuditEvent) -> str | None:
    address = event.actor.address
    return address if address and _version(address) == 4 else None


def _ipv6(event: AuditEvent) -> str | None:
    address = event.actor.address
    return address if address and _version(address) == 6 else None


def _ipv6_label(event: AuditEvent) -> str | None:
    return "Source IPv6 Address" if _ipv6(event) else None


def _host(event: AuditEvent) -> str | None:
    address = event.actor.address
    return address if address and not _version(address) else None


def _version(address: str) -> int:
    import ipaddress  # slow to import, and the common address is told by `_dotted_quad`

    if _dotted_quad(address):
        return 4
    try:
        return ipaddress.ip_address(address).version
    except ValueError:
        return 0


_DERIVED: Final[dict[str, tuple[str, Callable[[AuditEvent], Any]]]] = {
    "rt": ("time", _rt),
    "src": ("actor.address", _ipv4),
    "shost": ("actor.address", _host),
    "c6a2": ("actor.address", _ipv6),
    "c6a2Label": ("actor.address", _ipv6_label),
}
"""Keys whose value is worked out: the field it comes from, and how."""

_PLAIN: Final = {
    "externalId": "id", "cat": "category", "outcome": "outcome",
    "suser": "actor.name", "suid": "actor.id",
    "duser": "target.name", "duid": "target.id", "msg": "message",
}  # fmt: skip
"""Keys that carry a field as it is. `msg` comes last: what cuts a message cuts its text first."""


class Cef:
    """Events → CEF lines.

    Two ways to the same bytes (test_the_fast_line_equals_the_careful_line): one `%` over every value
    when all are there, kept if counting `=` and looking for `\\` and breaks proves that nothing in
    it needed escaping; else key by key.
    """

    def __init__(self, options: CefOptions) -> None:
        self._types: dict[str, str] = {}
        self._prefix = "CEF:0|" + "|".join(
            _header(part) for part in (options.vendor, options.product, options.version)
        )
        derived = {key: made for key, made in _DERIVED.items() if key not in options.map}
        plain = {key: field for key, field in _PLAIN.items() if key not in options.map}
        plain |= {key: field for key, field in options.map.items() if field is not None}
        if "msg" in plain:
            plain["msg"] = plain.pop("msg")
        fields = {*plain.values(), *(field for field, _ in derived.values())}
        self.fields = frozenset(
            {"attributes" if field.startswith("attributes.") else field for field in fields}
            | {"type", "severity"}
        )
        self._getters = {key: get for key, (_, get) in derived.items()}
        self._getters |= {key: field_getter(field) for key, field in plain.items()}
        self._rt, self._src = "rt" in derived, "src" in derived
        self._address = not derived.keys() <= {"rt"}
        simple = not any(field.startswith("attributes.") for field in plain.values())
        # Two fields at least, or attrgetter gives the value itself instead of a tuple.
        self._get = attrgetter(*plain.values()) if simple and len(plain) > 1 else None
        self._template = " ".join(f"{key}=%s" for key in plain)
        self._equals = len(plain) + self._rt + self._src

    def _fast(self, event: AuditEvent) -> str | None:
        """The extension if nothing in it needs care, else None."""
        if self._get is None:
            return None
        values = self._get(event)
        if None in values or "" in values:
            return None
        text = self._template % values
        if self._address:
            address = event.actor.address
            if not self._src or address is None or not _dotted_quad(address):
                return None
            text = f"src={address} {text}"
        if self._rt:
            text = f"rt={_rt(event)} {text}"
        if text.count("=") != self._equals or "\\" in text or "\n" in text or "\r" in text:
            return None
        return text

    def _fast_if_printable(self, event: AuditEvent) -> str | None:
        text = self._fast(event)
        return text if text is not None and text.isprintable() else None

    def _careful(self, event: AuditEvent) -> str:
        pairs = ((key, get(event)) for key, get in self._getters.items())
        return " ".join(f"{k}={_value(text_of(v))}" for k, v in pairs if v is not None and v != "")

    def _type(self, name: str) -> str:
        if len(self._types) >= _TYPES_KEPT:
            self._types.clear()
        escaped = self._types[name] = f"{self._prefix}|{_header(name)}|{_header(name)}|"
        return escaped

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        types, fast = self._types, self._fast
        if selection.decoded.controls:
            fast = self._fast_if_printable
        lines = []
        for event in selection.events:
            kind = event.type
            head = types.get(kind) or self._type(kind)
            lines.append(f"{head}{event.severity}|{fast(event) or self._careful(event)}")
        return utf8(lines)


_dotted_quad: Final = re.compile(
    r"(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?:25[0-5]|2[0-4]\d|1?\d?\d)){3}", re.ASCII
).fullmatch

# Types are escaped once each; they come from outside, so this many are remembered at a time.
_TYPES_KEPT: Final = 4096
