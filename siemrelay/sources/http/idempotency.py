"""Requests that repeat an earlier one: records with a known `Idempotency-Key` are stored once.

The signature of a signed request is a key as well, so a request that was recorded and is sent again
is stored once. A key is remembered from the moment its request is under way, so a second one waits
for the outcome of the first; and beyond a restart, in positions that are stored in the records' own
transaction. Only the newest KEPT of them are remembered, each for no longer than KEPT_S.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import trio

from siemrelay.sources.contract import Position

KEPT: Final = 32_768
"""Senders repeat a request within minutes; at a hundred requests a second this is over five. A key
costs some 500 bytes."""

KEPT_S: Final = 86_400.0
"""Senders retry for a day at most, by custom."""

_PREFIX: Final = "idempotency/"
_DIGEST_BYTES: Final = 16


class KeyedRequest:
    """A request known by its keys: under way until `done`, then stored or not."""

    __slots__ = ("at", "body", "count", "done", "keys", "slot", "stored")

    def __init__(self, keys: Sequence[str], body: str, at: float, slot: int, count: int) -> None:
        self.keys, self.body, self.at, self.slot, self.count = tuple(keys), body, at, slot, count
        self.done = trio.Event()
        self.stored = False

    def position(self) -> Position:
        """The entry that is stored beside the records, so that a restart knows the keys."""
        value = {"keys": self.keys, "body": self.body, "count": self.count, "at": self.at}
        return Position(f"{_PREFIX}{self.slot}", value)


class IdempotencyKeys:
    """The keys of one source's requests. Times are in seconds since the epoch."""

    def __init__(self, stored: Mapping[str, Mapping[str, Any]]) -> None:
        """`stored` are the source's positions."""
        self._requests: dict[int, KeyedRequest] = {}
        self._by_key: dict[str, KeyedRequest] = {}
        self._slot = 0
        found = [
            KeyedRequest(value.get("keys") or [value["key"]], value["body"], value["at"],
                         int(name[len(_PREFIX) :]), value["count"])
            for name, value in stored.items() if name.startswith(_PREFIX)
        ]  # fmt: skip
        for request in sorted(found, key=lambda each: each.at):
            self._add(request)
            self.end(request, stored=True)

    def find(self, keys: Iterable[str], now: float) -> KeyedRequest | None:
        """The request that has one of the keys, if one is known."""
        for key in keys:
            request = self._by_key.get(key)
            if request and not (request.done.is_set() and now - request.at > KEPT_S):
                return request
        return None

    def begin(
        self, keys: Sequence[str], body: bytes, count: int, now: float
    ) -> KeyedRequest | None:
        """Note that a request is under way; None if too many are."""
        # Slots are given out in turn: the one that comes next has the oldest request, or none.
        if (oldest := self._requests.get(self._slot)) is not None:
            if not oldest.done.is_set():
                return None
            self._forget(oldest)
        request = KeyedRequest(keys, fingerprint(body), now, self._slot, count)
        self._add(request)
        return request

    def end(self, request: KeyedRequest, *, stored: bool) -> None:
        """Note how it ended; a request that was not stored may come again."""
        request.stored = stored
        request.done.set()
        if not stored:
            self._forget(request)

    def _add(self, request: KeyedRequest) -> None:
        self._requests[request.slot] = request
        self._by_key.update(dict.fromkeys(request.keys, request))
        self._slot = (request.slot + 1) % KEPT

    def _forget(self, request: KeyedRequest) -> None:
        self._requests.pop(request.slot, None)
        for key in request.keys:
            if self._by_key.get(key) is request:
                del self._by_key[key]


def scoped(key: str, sender: Iterable[str]) -> str:
    """A key that is one sender's; neither the key nor the sender can be read from it."""
    digest = hashlib.blake2b(key.encode(), digest_size=_DIGEST_BYTES, person=b"idempotency-key")
    for part in sender:
        digest.update(b"\0" + part.encode())
    return digest.hexdigest()


def fingerprint(body: bytes) -> str:
    """Identifies a body, so that a key used twice by mistake loses no records."""
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES).hexdigest()
