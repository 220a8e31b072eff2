"""Elasticsearch's bulk form: before each document the line that says what to do with it."""

from __future__ import annotations

import hashlib
from typing import Final

from siemrelay.core.event import AuditEvent, Selection
from siemrelay.formats.contract import Format
from siemrelay.formats.writing.json_text import message_of

# Elasticsearch takes ids of up to 512 bytes; half of it leaves room within the smallest
# `max_message_size` (480), so that no message is cut inside its first line.
_ID_BYTES: Final = 256

# The end of an id that was shortened to fit a limit: such ids may be alike.
_SHORTENED: Final = "[cut]"


class Bulk:
    """`{"create":{"_id":"…"}}`, a line feed, and the inner format's JSON object.

    The two lines are one message, byte for byte as they go out, because they must not be parted;
    so the contract's "no line feed" holds for the inner format, and a run is its messages joined
    by line feeds. `_id` is the event's own id: what is sent again is refused as a conflict
    instead of stored twice.
    """

    def __init__(self, inner: Format) -> None:
        self._inner = inner
        self.fields = inner.fields | {"id"}

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        documents = self._inner.encode(selection)
        return list(map(_action, selection.events, documents))


def _action(event: AuditEvent, document: bytes) -> bytes:
    name = event.id
    if not name or name.endswith(_SHORTENED):
        # Not every event has a name of its own here: better stored twice than taken for another.
        return b'{"create":{}}\n' + document
    written = message_of(name)
    if len(written) > _ID_BYTES:
        written = b'"' + hashlib.sha256(written).hexdigest().encode() + b'"'
    return b'{"create":{"_id":' + written + b"}}\n" + document
