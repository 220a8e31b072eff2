"""Messages that carry a key beside their bytes, for queues that keep order by key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from siemrelay.core.event import AuditEvent, Selection
from siemrelay.formats.contract import Canonical, Format

KeyName = Literal["source", "actor"]


class KeyedMessage(bytes):
    """A message; `key` is what it is ordered by."""

    key: bytes

    def replace(self, *changed: Any) -> KeyedMessage:
        """As of bytes; the key stays."""
        message = KeyedMessage(super().replace(*changed))
        message.key = self.key
        return message


def keys_of(messages: Sequence[bytes]) -> list[bytes | None] | None:
    """The keys of messages, None for one without; None if no message has one."""
    if KeyedMessage not in set(map(type, messages)):
        return None
    return [message.key if isinstance(message, KeyedMessage) else None for message in messages]


def with_keys(messages: Iterable[bytes], keys: Iterable[bytes | None]) -> Iterator[bytes]:
    """The messages with these keys; None leaves one as it is."""
    for message, key in zip(messages, keys, strict=True):
        if key is None:
            yield message
        else:
            keyed = KeyedMessage(message)
            keyed.key = key
            yield keyed


class Keyed:
    """The inner format's messages, each with its key.

    `source` is the name of the relay's source; `actor` the actor's name, or its id where it has no
    name, and the source's name for events that nobody did.
    """

    def __init__(self, inner: Format, key: KeyName) -> None:
        self._inner, self._by_actor = inner, key == "actor"
        self.members = inner.members
        self.canonical = isinstance(inner, Canonical) and inner.canonical
        self.fields = inner.fields | ({"actor.name", "actor.id"} if self._by_actor else set())

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        source = selection.decoded.batch.source.encode()
        messages = self._inner.encode(selection)
        keys = [(self._by_actor and _actor(event)) or source for event in selection.events]
        return list(with_keys(messages, keys))


def keyed_messages(inner: Format, options: Any) -> Format:
    """Any format's messages with the key that the options name."""
    return inner if options.key == "none" else Keyed(inner, options.key)


def _actor(event: AuditEvent) -> bytes:
    return (event.actor.name or event.actor.id or "").encode()
