"""Syslog, RFC 3164 (BSD): a header without a zone, then one line of text for people and `grep`."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from siemrelay.core.event import FIELDS, Selection
from siemrelay.core.memo import BoundedMemo
from siemrelay.formats.contract import FormatKind
from siemrelay.formats.field_map import PlainKeys, fields_read
from siemrelay.formats.syslog_header import HeaderOptions, Rfc3164Header
from siemrelay.formats.writing.columns import Lines, nonempty
from siemrelay.formats.writing.structured_data import quoted_pairs
from siemrelay.formats.writing.text import visible

_SHOWN: Final = tuple(field for field in FIELDS if field not in ("type", "message"))


# How messages of the other formats begin. A type that begins so has a space before it in a sealed
# stream: `proof.leaf` would else take a number in it for the message's own
# (test_a_type_that_looks_like_another_format_has_the_number_of_its_message).
_OTHER_FORMATS: Final = ("CEF:", "LEEF:", "[event@", "{")


def _numbered_type(text: str) -> str:
    shown = visible(text)
    return f" {shown}" if shown.startswith(_OTHER_FORMATS) else shown


class Rfc3164Options(HeaderOptions):
    """The options of a sink with RFC 3164 messages."""

    map: PlainKeys = Field(
        default={},
        description="pairs to add after the event's own, each with the event field it takes "
        "(`ticket: attributes.ticket`)",
    )


class Rfc3164:
    """Events → `<PRI>Mmm dd hh:mm:ss HOST TAG: Type: message (id="…" time="…" …)`.

    In the values `"`, `\\` and `]` have a backslash before them, as in RFC 5424. Read from the end,
    the pairs are the event's own, whatever its message says: no value can begin a pair.
    """

    members = None

    def __init__(self, options: Rfc3164Options, host: str) -> None:
        named = [(name, name) for name in _SHOWN]
        named += [(key, field) for key, field in options.map.items() if field is not None]
        self.fields = fields_read((*FIELDS, *(field for _, field in named)))
        self._pairs = quoted_pairs(named)
        self._header = Rfc3164Header(options, host)
        self._types = BoundedMemo(visible)
        self._numbered_types = BoundedMemo(_numbered_type)

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        lines = Lines(len(selection))
        self._header.begin(lines, selection)
        types = self._numbered_types if selection.number else self._types
        lines.each(map(types.__getitem__, selection.column("type")))
        lines.pair(": ", nonempty(selection.column("message")).escaped(visible))
        lines.text(" (")
        lines.pairs(self._pairs.of(selection), " ")
        lines.text(f' n="{selection.number}")' if selection.number else ")")
        return lines.encoded()


RFC3164: Final = FormatKind(
    Rfc3164Options,
    Rfc3164,
    "RFC 3164 (BSD syslog), the event as key=value",
    maps=True,
    numbered=True,
)
