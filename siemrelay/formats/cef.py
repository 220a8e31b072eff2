"""ArcSight's Common Event Format, `CEF:0|Vendor|Product|Version|Type|Name|Severity|key=value …`.

Rules: ArcSight CEF implementation standard, revision 26. In the header `\\` and `|` are escaped, in
values `\\` and `=`; a line break in a value becomes the two characters `\\n` or `\\r`, and in the
header, where there is no escape for it, its picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from siemrelay.core.event import AuditEvent, Selection
from siemrelay.core.memo import BoundedMemo
from siemrelay.formats.contract import FormatKind
from siemrelay.formats.field_map import DeviceOptions, fields_read, mapped_keys
from siemrelay.formats.writing.address import ip_version, ip_versions
from siemrelay.formats.writing.columns import FEW_EVENTS, Column, FieldPairs, Lines, Pair, nonempty
from siemrelay.formats.writing.epoch import EpochMs
from siemrelay.formats.writing.text import is_plain, replaced, visible


class CefOptions(DeviceOptions):
    """The options of a sink with CEF messages."""


def _header(text: str) -> str:
    return visible(text.replace("\\", "\\\\").replace("|", "\\|"))


def _value(text: str) -> str:
    if is_plain(text):
        return replaced(text, "=", "\\=")
    for character, instead in _ESCAPES.items():
        text = replaced(text, character, instead)
    return visible(text)


_ESCAPES: Final = {"\\": "\\\\", "=": "\\=", "\n": "\\n", "\r": "\\r"}  # the escape first


_BY_ADDRESS: Final[dict[str, tuple[int, str | None]]] = {
    "src": (4, None), "shost": (0, None), "c6a2": (6, None),
    "c6a2Label": (6, "Source IPv6 Address"),
}  # fmt: skip
"""Keys of an actor's address, with the IP version that it must have (0: none, a host's name), and
the key's value if that is not the address."""

_PLAIN: Final = {
    "externalId": "id", "cat": "category", "outcome": "outcome",
    "suser": "actor.name", "suid": "actor.id",
    "duser": "target.name", "duid": "target.id", "msg": "message",
}  # fmt: skip
"""Keys that carry a field as it is."""


class Cef:
    """Events → CEF lines, a key of all of them at a time."""

    members = None

    def __init__(self, options: CefOptions) -> None:
        self._prefix = "CEF:0|" + "|".join(
            _header(part) for part in (options.vendor, options.product, options.version)
        )
        self._heads = BoundedMemo(self._head)
        plain = mapped_keys(_PLAIN, options.map, last="msg")
        pairs = [(f"{key}=", field, "") for key, field in plain.items()]
        self._plain = FieldPairs(pairs, _value, " ")
        self._by_address = [
            (f"{key}=", version, instead)
            for key, (version, instead) in _BY_ADDRESS.items()
            if key not in options.map
        ]
        self._epoch = None if "rt" in options.map else EpochMs()
        fields = {"type", "severity", *plain.values()}
        fields |= {"time"} if self._epoch else set()
        fields |= {"actor.address"} if self._by_address else set()
        self.fields = fields_read(fields)

    def _head(self, kind: str) -> str:
        name = _header(kind)
        return f"{self._prefix}|{name}|{name}|"

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        if len(selection) <= FEW_EVENTS:
            number = selection.number
            return [self._line(event, number).encode() for event in selection.events]
        lines = Lines(len(selection))
        lines.each(map(self._heads.__getitem__, selection.column("type")))
        lines.each(map(_SEVERITIES.__getitem__, selection.column("severity")))
        lines.pairs(self._columns(selection), " ")
        return lines.encoded()

    def _line(self, event: AuditEvent, number: str | None) -> str:
        """One event's line: what the columns are for many, in a few steps."""
        pairs = [f"siemrelayN={number}"] if number else []
        if self._epoch:
            pairs.append(f"rt={self._epoch(event.time or '')}")
        if self._by_address and (address := event.actor.address):
            version = ip_version(address)
            shown = address if version == 4 else _value(address)
            pairs += [
                key + (instead or shown)
                for key, wanted, instead in self._by_address
                if wanted == version
            ]
        if plain := self._plain.alone(event):
            pairs.append(plain)
        return self._heads[event.type] + _SEVERITIES[event.severity] + " ".join(pairs)

    def _columns(self, selection: Selection) -> Iterator[Pair]:
        if selection.number:
            yield "siemrelayN=", Column([selection.number] * len(selection)), ""
        if self._epoch:
            yield "rt=", Column(self._epoch.column(selection.column("time"))), ""
        if self._by_address:
            yield from self._address_pairs(selection)
        yield from self._plain.of(selection)

    def _address_pairs(self, selection: Selection) -> Iterator[Pair]:
        addresses = nonempty(selection.column("actor.address"))
        if addresses.empty:
            return
        versions = addresses.map_present(ip_versions)
        shown = addresses if set(versions) == _IPV4 else addresses.escaped(_value)
        for key, wanted, instead in self._by_address:
            if wanted in versions:
                value = shown.with_texts([instead] * len(selection)) if instead else shown
                yield key, value.where(versions, wanted), ""


_IPV4: Final = {4}  # these need no escaping
_SEVERITIES: Final[dict[int | None, str]] = {level: f"{level}|" for level in (None, *range(11))}


CEF: Final = FormatKind(
    CefOptions, lambda options, host: Cef(options), "ArcSight's Common Event Format",
    header="rfc3164", headers=True, maps=True, tag=False, numbered=True,
)  # fmt: skip
