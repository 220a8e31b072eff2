"""Elasticsearch's bulk form: before each document the line that says what to do with it."""

from __future__ import annotations

from typing import Any

import msgspec

from siemrelay.core.event import Selection
from siemrelay.formats.contract import Format
from siemrelay.formats.envelopes.record_id import record_ids
from siemrelay.formats.envelopes.timestamped import Timestamped


class Bulk:
    """`{"create":{"_id":"…"}}`, a line feed, and the inner format's JSON object.

    The two lines are one message, byte for byte as they go out, because they must not be parted;
    so the contract's "no line feed" holds for the inner format, and a request is the messages
    joined by line feeds. `_id` is the record's id (see `record_ids`): a document that is sent again
    is refused as a conflict instead of stored twice, and no sender can take another's id.
    """

    members = None

    def __init__(self, inner: Format, index: str | None = None) -> None:
        """`index`: the name for each action, where the request's path does not have it."""
        self._inner = inner
        named = b"" if index is None else b'"_index":%b,' % msgspec.json.encode(index)
        self._line = b'{"create":{%b"_id":"%%b"}}\n%%b' % named.replace(b"%", b"%%")
        self.fields = inner.fields | {"id"}

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        documents = self._inner.encode(selection)
        return [
            self._line % (name.encode(), document)
            for name, document in zip(record_ids(selection), documents, strict=True)
        ]


def bulk_documents(inner: Format, options: Any) -> Format:
    """Any format's messages as documents with `@timestamp`, each behind its `create` line."""
    index = options.index if options.index_in == "action" else None
    return Bulk(Timestamped(inner, stamp="@timestamp", text="message"), index)
