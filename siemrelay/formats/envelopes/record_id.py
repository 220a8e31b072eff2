"""Ids under which receivers recognise a record that is sent again, and no other record."""

from __future__ import annotations

import hashlib
from typing import Final

from siemrelay.core.event import Selection

# 128 bits: nobody finds a second record for an id, and the id fits into a short `_id`.
_DIGEST_BYTES: Final = 16
_SALT: Final = b"siemrelay-record"

# The end of an id or record that was shortened to fit a limit: such ones may be alike.
_SHORTENED: Final = b"[cut]"


def record_ids(selection: Selection) -> list[str]:
    """One id per event, in order: 32 hexadecimal digits, the same at every retry and replay.

    An event's own id cannot serve: any sender may send `id=ev-1001`, and a receiver would take its
    event for a repeat of another's. So the id is a digest of the source's name, the event's own id
    and the bytes of the record: two records share it only if the same source received the same
    bytes twice, as a queue's redelivery does. Events without an id of their own, and shortened
    ones, have the sequence number in it too.
    """
    batch = selection.decoded.batch
    head = b"%b\n%d\n" % ((batch.identity or batch.source).encode(), batch.part or 0)
    begun = hashlib.blake2b(head, digest_size=_DIGEST_BYTES, salt=_SALT)
    ids = []
    for event, record, sequence in zip(
        selection.events, selection.received, selection.sequences, strict=True
    ):
        digest = begun.copy()
        digest.update(_own(event.id, record, sequence) + record)
        ids.append(digest.hexdigest())
    return ids


def _own(name: str | None, record: bytes, sequence: int) -> bytes:
    """The event's own id with its length in front, so that no record can end it elsewhere."""
    own = (name or "").encode("utf-8", "surrogatepass")
    if not own or own.endswith(_SHORTENED) or record.endswith(_SHORTENED):
        own = b"%b\n%d" % (own, sequence)
        return b"-%d\n%b" % (len(own), own)
    return b"%d\n%b" % (len(own), own)
