"""Syslog, RFC 5424, with the whole event in structured data and its message as MSG."""

from __future__ import annotations

import re
from operator import attrgetter
from typing import Any, Final

from pydantic import Field

from siemrelay.event import FIELDS, AuditEvent, Selection, attributes_of
from siemrelay.formats.syslog_header import HeaderOptions, rfc5424_header
from siemrelay.formats.text import text_of, utf8, visible

_NOT_IN_NAMES: Final = re.compile(r'[^!#-<>-\\^-~]|[\]="]')  # RFC 5424, 6.3.3: SD-NAME
_NAME_CHARACTERS: Final = 32

# Attributes nest as their sender likes; deeper than this they stay JSON text.
_DEPTH: Final = 4

# Attribute names come from outside; so many of them are remembered at a time.
_NAMES_KEPT: Final = 4096

_VALUES: Final = tuple(f for f in FIELDS if f not in ("time", "severity", "message"))


class Rfc5424Options(HeaderOptions):
    """What a sink with RFC 5424 messages may set."""

    enterprise_id: int = Field(
        32473, ge=1, description="the private enterprise number in the structured data's id "
        "(`event@32473`); 32473 is the one reserved for examples"
    )  # fmt: skip


class Rfc5424:
    """Events → `<PRI>1 TIME HOST APP - MSGID [event@PEN id="…" …] MESSAGE`."""

    fields = frozenset({*FIELDS, "attributes"})

    def __init__(self, options: Rfc5424Options, host: str) -> None:
        self._header = rfc5424_header(options, host)
        self._open = f'[event@{options.enterprise_id} sequence="'
        self._names: dict[str, str] = {}

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        header, start, values_of = self._header, self._open, _values
        lines = []
        for sequence, event in zip(selection.sequences, selection.events, strict=True):
            values = values_of(event)
            data = _TEMPLATE % values if None not in values else None
            # Counting quotes proves that no value has one; then only `\` and `]` are left.
            if data is None or data.count('"') != _QUOTES or "\\" in data or "]" in data:
                data = "".join(
                    f' {name}="{_escaped(value)}"'
                    for name, value in zip(_VALUES, values, strict=True)
                    if value is not None
                )
            rest = self._attributes(event) if event.attributes else ""
            line = f'{header(event)}{start}{sequence}" severity="{event.severity}"{data}{rest}] {event.message or event.type}'
            lines.append(line if line.isprintable() else visible(line))
        return utf8(lines)

    def _attributes(self, event: AuditEvent) -> str:
        return "".join(
            f' {self._name(name)}="{_escaped(text_of(value))}"'
            for name, value in flattened(attributes_of(event))
        )

    def _name(self, name: str) -> str:
        known = self._names.get(name)
        if known is None:
            if len(self._names) >= _NAMES_KEPT:
                self._names.clear()
            known = _NOT_IN_NAMES.sub("_", name)[:_NAME_CHARACTERS] or "_"
            self._names[name] = known
        return known


_values = attrgetter(*_VALUES)
_TEMPLATE: Final = "".join(f' {name}="%s"' for name in _VALUES)
_QUOTES: Final = 2 * len(_VALUES)


def _escaped(value: str) -> str:
    """PARAM-VALUE: exactly `"`, `\\` and `]` are escaped (RFC 5424, 6.3.3)."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")


def flattened(attributes: dict[str, Any], depth: int = _DEPTH) -> list[tuple[str, Any]]:
    """Nested objects as dotted names, in order; lists and what is deeper stay one value."""
    pairs: list[tuple[str, Any]] = []
    for name, value in attributes.items():
        if isinstance(value, dict) and value and depth > 1:
            pairs += [(f"{name}.{inner}", v) for inner, v in flattened(value, depth - 1)]
        else:
            pairs.append((name, value))
    return pairs
