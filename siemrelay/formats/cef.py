"""ArcSight's Common Event Format, `CEF:0|Vendor|Product|Version|Type|Name|Severity|key=value …`.

Rules: ArcSight CEF implementation standard, revision 26. In the header `\\` and `|` are escaped, in
values `\\` and `=`; a line break in a value becomes the two characters `\\n` or `\\r`, and in the
header, where there is no escape for it, its picture.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

import msgspec

from siemrelay.event import AuditEvent, Selection, field_getter
from siemrelay.formats.address import dotted_quad, ip_version
from siemrelay.formats.contract import FormatKind
from siemrelay.formats.epoch import EpochMs
from siemrelay.formats.mapped import DeviceOptions
from siemrelay.formats.pairs import Pairs
from siemrelay.formats.text import CONTROL_PICTURES, text_of, utf8
from siemrelay.times import epoch_ms


class CefOptions(DeviceOptions):
    """What a CEF sink may set."""


def _header(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").translate(CONTROL_PICTURES)


_BREAKS: Final[dict[int, int | str]] = {**CONTROL_PICTURES, 0x0A: "\\n", 0x0D: "\\r"}


def _value(text: str) -> str:
    text = text.replace("\\", "\\\\").replace("=", "\\=")
    return text if text.isprintable() else text.translate(_BREAKS)


def _rt(event: AuditEvent) -> str:
    return str(epoch_ms(event.time or ""))


def _ipv4(event: AuditEvent) -> str | None:
    address = event.actor.address
    return address if address and ip_version(address) == 4 else None


def _ipv6(event: AuditEvent) -> str | None:
    address = event.actor.address
    return address if address and ip_version(address) == 6 else None


def _ipv6_label(event: AuditEvent) -> str | None:
    return "Source IPv6 Address" if _ipv6(event) else None


def _host(event: AuditEvent) -> str | None:
    address = event.actor.address
    return address if address and not ip_version(address) else None


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

    Two ways to the same text (test_the_fast_line_equals_the_careful_line): one `%` over all the
    values, kept if counting `=` and looking for everything that JSON escapes prove that nothing in
    it needed care; else key by key.
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
        self._rt = EpochMs() if "rt" in derived else None
        by_address = derived.keys() - {"rt"}
        self._address, self._src = bool(by_address), "src" in by_address
        self._pairs = Pairs(plain, "{name}=%s")
        self._all, self._count = self._pairs.template, len(plain)
        simple = not any(field.startswith("attributes.") for field in plain.values())
        # Two fields at least, or attrgetter gives the value itself instead of a tuple.
        self._get = attrgetter(*plain.values()) if simple and len(plain) > 1 else None

    def _fast(self, event: AuditEvent) -> str | None:
        """The extension if nothing in it needs care, else None."""
        if self._get is None:
            return None
        values = self._get(event)
        if all(values):
            text, pairs = self._all % values, self._count
        else:
            text, pairs = self._pairs.fill(values)
        if self._address and (address := event.actor.address):
            if not dotted_quad(address):
                return None
            if self._src:
                text, pairs = f"src={address} {text}", pairs + 1
        if self._rt:
            text, pairs = f"rt={self._rt(event.time or '')} {text}", pairs + 1
        if text.count("=") != pairs:
            return None
        try:
            # No longer than itself as JSON: ASCII without `"`, `\` and control characters.
            plain = len(_json(text)) == len(text) + 2 or (text.isprintable() and "\\" not in text)
        except UnicodeEncodeError:
            return None
        return text if plain else None

    def _careful(self, event: AuditEvent) -> str:
        pairs = ((key, get(event)) for key, get in self._getters.items())
        return " ".join(f"{k}={_value(text_of(v))}" for k, v in pairs if v is not None and v != "")

    def _type(self, name: str) -> str:
        escaped = f"{self._prefix}|{_header(name)}|{_header(name)}|"
        if len(name) <= _TYPE_CHARACTERS:
            if len(self._types) >= _TYPES_KEPT:
                self._types.clear()
            self._types[name] = escaped
        return escaped

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        types, fast = self._types, self._fast
        lines = []
        for event in selection.events:
            kind = event.type
            head = types.get(kind) or self._type(kind)
            lines.append(f"{head}{event.severity}|{fast(event) or self._careful(event)}")
        return utf8(lines)


_json: Final = msgspec.json.Encoder().encode

# Types are escaped once each; they come from outside, so this many, so long, are remembered.
_TYPES_KEPT: Final = 4096
_TYPE_CHARACTERS: Final = 256


CEF: Final = FormatKind(
    CefOptions, lambda options, host: Cef(options), "ArcSight's Common Event Format",
    header="rfc3164", headers=True, tag=False,
)  # fmt: skip
