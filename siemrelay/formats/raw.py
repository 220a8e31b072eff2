"""The bytes as received, one line each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from siemrelay.core.event import Selection
from siemrelay.formats.contract import FormatKind
from siemrelay.formats.syslog_header import HeaderOptions
from siemrelay.formats.writing.text import are_text_lines, is_utf8, one_line_each


class RawOptions(HeaderOptions):
    """The options of a sink with raw records: those of its syslog header, if it has one."""


class Raw:
    """Records → the same bytes, but for what would break a line or is no UTF-8.

    A CR at the end belongs to the line's ending and is left out.
    """

    fields: frozenset[str] = frozenset()
    members = None

    def encode(self, selection: Selection) -> Sequence[bytes]:
        """See `formats.contract.Format`."""
        records = selection.records
        if are_text_lines(records):
            return records
        texts = [record.rstrip(b"\r") for record in records]
        return one_line_each(
            [t if is_utf8(t) else t.decode("utf-8", "replace").encode() for t in texts]
        )


RAW: Final = FormatKind(
    RawOptions, lambda options, host: Raw(), "the bytes as received", headers=True
)
