"""Syslog, RFC 3164 (BSD): a header without a zone, then one line of text for people and `grep`."""

from __future__ import annotations

from operator import attrgetter
from typing import Final

from siemrelay.core.event import FIELDS, AuditEvent, Selection
from siemrelay.core.memo import BoundedMemo
from siemrelay.formats.contract import FormatKind
from siemrelay.formats.syslog_header import HeaderOptions, Rfc3164Header
from siemrelay.formats.writing.columns import FEW, Lines, told
from siemrelay.formats.writing.templates import QuotedPairs
from siemrelay.formats.writing.text import one_line_each, utf8, visible

_SHOWN: Final = tuple(field for field in FIELDS if field not in ("type", "message"))
_values: Final = attrgetter(*_SHOWN)


class Rfc3164:
    """Events → `<PRI>Mmm dd hh:mm:ss HOST TAG: Type: message (id="…" time="…" …)`.

    In the values `"`, `\\` and `]` have a backslash before them, as in RFC 5424.
    """

    fields = frozenset(FIELDS)

    def __init__(self, options: HeaderOptions, host: str) -> None:
        self._header = Rfc3164Header(options, host)
        self._pairs = QuotedPairs(_SHOWN)
        self._types = BoundedMemo(visible)

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        if len(selection) < FEW:
            return one_line_each(utf8(map(self._line, selection.events)))
        lines = Lines(len(selection))
        self._header.begin(lines, selection)
        lines.each(map(self._types.__getitem__, selection.column("type")))
        lines.pair(": ", told(selection.column("message")).escaped(visible))
        lines.text(" (")
        self._pairs.put(lines, selection)
        lines.text(")")
        return lines.encoded()

    def _line(self, event: AuditEvent) -> str:
        said = f": {event.message}" if event.message else ""
        return f"{self._header(event)}{event.type}{said} ({self._pairs.fill(_values(event))})"


RFC3164: Final = FormatKind(HeaderOptions, Rfc3164, "RFC 3164 (BSD syslog), the event as key=value")
