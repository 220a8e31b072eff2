"""The bytes as received, one line each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from siemrelay.core.event import Selection
from siemrelay.formats.contract import FormatKind
from siemrelay.formats.syslog_header import HeaderOptions
from siemrelay.formats.writing.text import forwarded


class RawOptions(HeaderOptions):
    """The options of a sink with raw records: those of its syslog header, if it has one."""


class Raw:
    """Records → the same bytes; see `forwarded`."""

    fields: frozenset[str] = frozenset()
    members = None

    def encode(self, selection: Selection) -> Sequence[bytes]:
        """See `formats.contract.Format`."""
        return forwarded(selection.records)

    def forwards(self, record: bytes, *, is_syslog: bool) -> bool:
        """See `formats.contract.Forwarding`."""
        return True


RAW: Final = FormatKind(
    RawOptions,
    lambda options, host: Raw(),
    "the bytes as received",
    headers=True,
    as_received=True,
)
