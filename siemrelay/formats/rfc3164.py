"""Syslog, RFC 3164 (BSD): a header without a zone, then one line of `key=value` text."""

from __future__ import annotations

from typing import Final

from siemrelay.event import FIELDS, AuditEvent, Selection, field_getter
from siemrelay.formats.syslog_header import HeaderOptions, rfc3164_header
from siemrelay.formats.text import utf8, visible

_SHOWN: Final = tuple(f for f in FIELDS if f not in ("type", "message", "severity"))
_GETTERS: Final = tuple((field, field_getter(field)) for field in _SHOWN)
_NEEDS_QUOTES: Final = frozenset(' "=\\')


class Rfc3164:
    """Events → `<PRI>Mmm dd hh:mm:ss HOST TAG: Type: message (id=… outcome=… actor.name="…")`."""

    fields = frozenset(FIELDS)

    def __init__(self, options: HeaderOptions, host: str) -> None:
        self._header = rfc3164_header(options, host)

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        header = self._header
        return utf8(header(event) + visible(_body(event)) for event in selection.events)


def _body(event: AuditEvent) -> str:
    pairs = [f"{f}={_quoted(str(v))}" for f, get in _GETTERS if (v := get(event)) not in (None, "")]
    pairs.append(f"severity={event.severity}")
    said = f": {event.message}" if event.message else ""
    return f"{event.type}{said} ({' '.join(pairs)})"


def _quoted(text: str) -> str:
    if _NEEDS_QUOTES.isdisjoint(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
