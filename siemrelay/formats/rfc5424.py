"""Syslog, RFC 5424, with the whole event in structured data and its message as MSG."""

from __future__ import annotations

import re
from collections.abc import Collection
from operator import attrgetter
from typing import Any, Final

from pydantic import Field

from siemrelay.event import FIELDS, AuditEvent, Selection, attributes_of
from siemrelay.formats.contract import FormatKind
from siemrelay.formats.pairs import QuotedPairs, escaped, needs_no_escape
from siemrelay.formats.syslog_header import HeaderOptions, rfc5424_header
from siemrelay.formats.text import one_line_each, text_of, utf8

_NOT_IN_NAMES: Final = re.compile(r'[^!-~]|[\]="]')  # RFC 5424, 6.3.3: SD-NAME
_NAME_CHARACTERS: Final = 32

# Attributes nest as their sender likes; deeper than this they stay JSON text.
_DEPTH: Final = 4

# Attribute names come from outside; so many of them, so long, are remembered at a time.
_NAMES_KEPT: Final = 4096
_KEPT_CHARACTERS: Final = 256

_SHOWN: Final = tuple(field for field in FIELDS if field not in ("time", "message"))
_values: Final = attrgetter(*_SHOWN)


class Rfc5424Options(HeaderOptions):
    """What a sink with RFC 5424 messages may set."""

    enterprise_id: int = Field(
        32473, ge=1, description="the private enterprise number in the structured data's id "
        "(`event@32473`); 32473 is the one reserved for examples"
    )  # fmt: skip


class Rfc5424:
    """Events → `<PRI>1 TIME HOST APP - MSGID [event@PEN id="…" …] MESSAGE`.

    Attributes follow the event's own fields under names without what SD-NAME does not allow.
    """

    fields = frozenset({*FIELDS, "attributes"})

    def __init__(self, options: Rfc5424Options, host: str) -> None:
        self._header = rfc5424_header(options, host)
        # SD-ID has 32 characters: the number cannot be as long as all that.
        self._open = f'[event@{options.enterprise_id} sequence="'
        self._pairs = QuotedPairs(_SHOWN)
        self._names: dict[str, str] = {}

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        header, start, fill, rest = self._header, self._open, self._pairs.fill, self._attributes
        return one_line_each(utf8([
            f'{header(event)}{start}{sequence}" {fill(_values(event))}'
            f"{rest(event) if event.attributes else ''}] {event.message or event.type}"
            for sequence, event in zip(selection.sequences, selection.events, strict=True)
        ]))  # fmt: skip

    def _attributes(self, event: AuditEvent) -> str:
        names, own = self._names, attributes_of(event)
        pairs = flattened(own) if dict in map(type, own.values()) else own.items()
        # As they are first; where that proves wrong, pair by pair.
        text = "".join([
            f' {names.get(name) or self._name(name)}="'
            f'{value if type(value) is str else text_of(value)}"'
            for name, value in pairs
        ])  # fmt: skip
        if needs_no_escape(text, len(pairs)):
            return text
        return "".join([f' {self._name(n)}="{escaped(text_of(v))}"' for n, v in pairs])

    def _name(self, name: str) -> str:
        known = _NOT_IN_NAMES.sub("_", name)[:_NAME_CHARACTERS] or "_"
        if len(name) <= _KEPT_CHARACTERS:
            if len(self._names) >= _NAMES_KEPT:
                self._names.clear()
            self._names[name] = known
        return known


def flattened(attributes: dict[str, Any], depth: int = _DEPTH) -> Collection[tuple[str, Any]]:
    """Nested objects as dotted names, in order; lists and what is deeper stay one value."""
    pairs: list[tuple[str, Any]] = []
    for name, value in attributes.items():
        if type(value) is dict and value and depth > 1:
            pairs += [(f"{name}.{inner}", v) for inner, v in flattened(value, depth - 1)]
        else:
            pairs.append((name, value))
    return pairs


SYSLOG: Final = FormatKind(Rfc5424Options, Rfc5424, "RFC 5424, the event in structured data")
