"""A syslog header in front of another format's messages (`header:` on a sink)."""

from __future__ import annotations

from operator import add
from typing import Literal

from siemrelay.core.event import Selection
from siemrelay.formats.contract import Format
from siemrelay.formats.syslog_header import Header, HeaderOptions, Rfc3164Header, Rfc5424Header
from siemrelay.formats.writing.columns import FEW, Lines
from siemrelay.formats.writing.text import utf8


class Headed:
    """`HEADER MESSAGE` for each message of the inner format.

    Behind RFC 3164 a CEF or LEEF line stands where the TAG would: receivers look for `CEF:` there.
    """

    def __init__(
        self, inner: Format, kind: Literal["rfc3164", "rfc5424"], options: HeaderOptions, host: str,
        *, tag: bool,
    ) -> None:  # fmt: skip
        """`tag`: whether the message needs RFC 3164's TAG in front."""
        self._inner = inner
        if kind == "rfc3164":
            self._header: Header = Rfc3164Header(options, host, tag=tag)
            self._gap = ""
        else:
            self._header, self._gap = Rfc5424Header(options, host), "- "  # no structured data
        self.fields = inner.fields | {"time", "type", "severity"}

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        if len(selection) < FEW:
            heads = utf8([self._header(event) + self._gap for event in selection.events])
        else:
            lines = Lines(len(selection))
            self._header.begin(lines, selection)
            lines.text(self._gap)
            heads = lines.encoded()
        return list(map(add, heads, self._inner.encode(selection)))
