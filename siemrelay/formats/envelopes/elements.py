"""Messages as elements of a JSON array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from siemrelay.core.event import Selection
from siemrelay.formats.contract import Canonical, Format
from siemrelay.formats.writing.json_text import message_of

_check: Final = msgspec.json.Decoder(msgspec.Raw).decode


class Elements:
    """The inner format's messages, each as one JSON value.

    A message that is one JSON value stays as it is; any other one (a CEF line, a record passed on
    as received) becomes a text. Joined by commas as they are, a record such as `{},{}` would be
    two elements, and a sender could forge events.
    """

    def __init__(self, inner: Format) -> None:
        self._inner = inner
        self.fields, self.members = inner.fields, inner.members
        self.canonical = isinstance(inner, Canonical) and inner.canonical

    def encode(self, selection: Selection) -> Sequence[bytes]:
        """See `formats.contract.Format`."""
        messages = self._inner.encode(selection)
        return messages if self.members is not None else list(map(_element, messages))


def array_elements(form: Format, options: Any) -> Format:
    """The sink's format as its body needs it."""
    return Elements(form) if options.batch.encoding == "array" else form


def _element(message: bytes) -> bytes:
    try:
        _check(message)
    except (msgspec.DecodeError, RecursionError):
        return message_of(message.decode("utf-8", "replace"))
    return message
