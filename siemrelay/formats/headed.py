"""A syslog header in front of another format's messages (`header:` on a sink)."""

from __future__ import annotations

from typing import Literal

from siemrelay.event import Selection
from siemrelay.formats.contract import Format
from siemrelay.formats.syslog_header import HeaderOptions, rfc3164_header, rfc5424_header
from siemrelay.formats.text import utf8


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
            self._header, self._gap = rfc3164_header(options, host, tag=tag), b""
        else:
            self._header, self._gap = rfc5424_header(options, host), b"- "  # no structured data
        self.fields = inner.fields | {"time", "type", "severity"}

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        gap = self._gap
        heads = utf8(map(self._header, selection.events))
        bodies = self._inner.encode(selection)
        return [head + gap + body for head, body in zip(heads, bodies, strict=True)]
