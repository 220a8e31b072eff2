"""Syslog, RFC 5424, with the whole event in structured data and its message as MSG."""

from __future__ import annotations

import re
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final

from pydantic import Field

from siemrelay.core.event import FIELDS, AuditEvent, Selection, attributes_of
from siemrelay.core.memo import BoundedMemo
from siemrelay.formats.contract import FormatKind
from siemrelay.formats.syslog_header import HeaderOptions, Rfc5424Header
from siemrelay.formats.writing.attributes import Named, attribute_column, flattened
from siemrelay.formats.writing.columns import FEW, Column, Lines
from siemrelay.formats.writing.templates import QuotedPairs, escaped, needs_no_escape, shown
from siemrelay.formats.writing.text import one_line_each, text_of, utf8, visible

_NOT_IN_NAMES: Final = re.compile(r'[^!-~]|[\]="]')  # RFC 5424, 6.3.3: SD-NAME
_NAME_CHARACTERS: Final = 32

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
        self._header = Rfc5424Header(options, host)
        # SD-ID has 32 characters: the number cannot be as long as all that.
        self._open = f'[event@{options.enterprise_id} sequence="'
        self._pairs = QuotedPairs(_SHOWN)
        self._names = BoundedMemo[str, str](
            lambda n: _NOT_IN_NAMES.sub("_", n)[:_NAME_CHARACTERS] or "_"
        )

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        if len(selection) < FEW:
            return one_line_each(utf8(map(self._line, selection.events, selection.sequences)))
        lines = Lines(len(selection))
        self._header.begin(lines, selection)
        lines.text(self._open)
        lines.each(map(repr, selection.sequences))
        lines.text('" ')
        self._pairs.put(lines, selection)
        attributes = attribute_column(selection, self._attributes, self._together, apart=True)
        lines.pair("", attributes)
        lines.text("] ")
        messages = selection.column("message")
        if not all(messages):
            messages = [event.message or event.type for event in selection.events]
        lines.pair("", Column(messages).escaped(visible))
        return lines.encoded()

    def _line(self, event: AuditEvent, sequence: int) -> str:
        more = self._attributes(attributes_of(event)) if event.attributes else ""
        return (
            f'{self._header(event)}{self._open}{sequence}" {self._pairs.fill(_values(event))}'
            f"{more}] {event.message or event.type}"
        )

    def _attributes(self, own: dict[str, Any]) -> str:
        names = self._names
        pairs = flattened(own) if dict in map(type, own.values()) else own.items()
        # As they are first; where that proves wrong, pair by pair.
        text = "".join([
            f' {names[name]}="{value if type(value) is str else text_of(value)}"'
            for name, value in pairs
        ])  # fmt: skip
        if not needs_no_escape(text, len(pairs)):
            text = "".join([f' {names[n]}="{escaped(text_of(v))}"' for n, v in pairs])
        return visible(text)

    def _together(self, lines: Lines, own: Sequence[Named]) -> bool:
        for named in own:
            name = self._names[named.name]
            lines.pair(f' {name}="', Column(named.texts()).escaped(shown), '"')
        return True


SYSLOG: Final = FormatKind(Rfc5424Options, Rfc5424, "RFC 5424, the event in structured data")
