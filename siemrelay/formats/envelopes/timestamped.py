"""JSON objects of any format, with the event's time under the name that the receiver expects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from siemrelay.core.event import AuditEvent, Selection
from siemrelay.formats.contract import Format
from siemrelay.formats.writing.json_text import message_of

_members_of: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_encode: Final = msgspec.json.Encoder().encode


class Timestamped:
    """The inner format's messages as JSON objects with the event's time in `stamp`.

    An object that has a value there keeps it. A message that is not a JSON object (a CEF line, a
    record passed on as received) becomes one, with the message in `text`.
    """

    def __init__(self, inner: Format, *, stamp: str, text: str) -> None:
        self._inner, self._stamp, self._text = inner, stamp, text
        self._head = _encode(stamp) + b":"
        found = msgspec.defstruct(
            "Found", [("value", msgspec.Raw, msgspec.Raw())], rename={"value": stamp}
        )
        self._found = msgspec.json.Decoder(found).decode
        self.fields = inner.fields | {"time"}
        self.members: frozenset[str] | None = (inner.members or frozenset()) | {stamp}

    def encode(self, selection: Selection) -> Sequence[bytes]:
        """See `formats.contract.Format`."""
        messages = self._inner.encode(selection)
        if self._stamp in (self._inner.members or ()):
            return messages
        return list(map(self._stamped, messages, selection.events))

    def _stamped(self, message: bytes, event: AuditEvent) -> bytes:
        try:
            value = bytes(self._found(message).value)  # type: ignore[attr-defined]  # defstruct
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            text = message.decode("utf-8", "replace")
            return message_of({self._stamp: event.time, self._text: text})
        if not value:
            # Put in front as bytes: what the inner format wrote stays as it is.
            rest = message.lstrip()[1:].lstrip()
            comma = b"" if rest.startswith(b"}") else b","
            return b"{" + self._head + _encode(event.time) + comma + rest
        if value == b"null":
            return message_of(_members_of(message) | {self._stamp: event.time})
        return message


def sentinel_records(inner: Format, options: Any) -> Format:
    """Any format's messages as records with the `TimeGenerated` that every table has."""
    return Timestamped(inner, stamp="TimeGenerated", text="RawData")
