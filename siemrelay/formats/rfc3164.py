"""Syslog, RFC 3164 (BSD): a header without a zone, then one line of text for people and `grep`."""

from __future__ import annotations

from typing import Final

from siemrelay.core.event import FIELDS, Selection
from siemrelay.core.memo import BoundedMemo
from siemrelay.formats.contract import FormatKind
from siemrelay.formats.syslog_header import HeaderOptions, Rfc3164Header
from siemrelay.formats.writing.columns import Column, Lines, nonempty
from siemrelay.formats.writing.structured_data import quoted_pairs
from siemrelay.formats.writing.text import visible

_SHOWN: Final = tuple(field for field in FIELDS if field not in ("type", "message"))


class Rfc3164:
    """Events → `<PRI>Mmm dd hh:mm:ss HOST TAG: Type: message (id="…" time="…" …)`.

    In the values `"`, `\\` and `]` have a backslash before them, as in RFC 5424. Read from the end,
    the pairs are the event's own, whatever its message says: no value can begin a pair.
    """

    fields = frozenset(FIELDS)

    def __init__(self, options: HeaderOptions, host: str) -> None:
        self._header = Rfc3164Header(options, host)
        self._types = BoundedMemo(visible)

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        lines = Lines(len(selection))
        self._header.begin(lines, selection)
        lines.each(map(self._types.__getitem__, selection.column("type")))
        lines.pair(": ", nonempty(selection.column("message")).escaped(visible))
        lines.text(" (")
        lines.pairs(quoted_pairs(selection, _SHOWN), " ")
        if selection.numbers:
            lines.pair(' n="', Column(selection.numbers), '"')
        lines.text(")")
        return lines.encoded()


RFC3164: Final = FormatKind(HeaderOptions, Rfc3164, "RFC 3164 (BSD syslog), the event as key=value")
