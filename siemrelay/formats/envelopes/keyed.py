"""Messages that carry a key beside their bytes, for queues that keep order by key."""

from __future__ import annotations

from typing import Any, Literal

from siemrelay.core.event import AuditEvent, Selection
from siemrelay.formats.contract import Format

KeyName = Literal["source", "actor"]


class KeyedMessage(bytes):
    """A message; `key` is what it is ordered by."""

    key: bytes

    def replace(self, *changed: Any) -> KeyedMessage:
        """As of bytes; the key stays."""
        message = KeyedMessage(super().replace(*changed))
        message.key = self.key
        return message


class Keyed:
    """The inner format's messages, each with its key.

    `source` is the name of the relay's source; `actor` the actor's name, or its id where it has no
    name, and the source's name for events that nobody did.
    """

    def __init__(self, inner: Format, key: KeyName) -> None:
        self._inner, self._by_actor = inner, key == "actor"
        self.members = inner.members
        self.fields = inner.fields | ({"actor.name", "actor.id"} if self._by_actor else set())

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        source = selection.decoded.batch.source.encode()
        messages: list[bytes] = []
        for message, event in zip(self._inner.encode(selection), selection.events, strict=True):
            keyed = KeyedMessage(message)
            keyed.key = (self._by_actor and _actor(event)) or source
            messages.append(keyed)
        return messages


def _actor(event: AuditEvent) -> bytes:
    return (event.actor.name or event.actor.id or "").encode()
