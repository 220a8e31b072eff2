"""The bytes as received, one line each."""

from __future__ import annotations

from typing import Final

from siemrelay.event import Selection
from siemrelay.formats.text import visible
from siemrelay.formats.syslog_header import HeaderOptions

_UNSAFE: Final = bytes([*range(0x20), 0x7F])


class RawOptions(HeaderOptions):
    """What a raw sink may set: its syslog header, if it has one."""


class Raw:
    """Records → the same bytes, but for what would break a line or is no UTF-8."""

    fields: frozenset[str] = frozenset()

    def __init__(self, options: RawOptions) -> None:
        self._options = options

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        records = selection.records
        joined = b"\n".join(records)
        plain = len(joined.translate(None, _UNSAFE)) == len(joined) - max(len(records) - 1, 0)
        if plain and (joined.isascii() or _is_utf8(joined)):
            return records
        return [visible(r.rstrip(b"\r").decode("utf-8", "replace")).encode() for r in records]


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
