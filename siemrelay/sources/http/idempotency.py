"""Requests that were taken before: the same `Idempotency-Key` again stores nothing again.

A key is remembered from the moment its request is under way, so a second one waits for the outcome
of the first; and beyond a restart, in positions that are stored in the records' own transaction.
Only the newest KEPT of them are remembered, each for no longer than KEPT_S.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

import trio

from siemrelay.sources.contract import Position

KEPT: Final = 8192
"""Senders repeat a request within minutes; at a hundred requests a second this is over a minute,
at the usual one a second, hours. A key costs some 500 bytes."""

KEPT_S: Final = 86_400.0
"""As long as senders go on trying, by custom."""

_PREFIX: Final = "idempotency/"
_DIGEST_BYTES: Final = 16


class Outcome:
    """What becomes of one key's request: under way until `done`, then stored or not."""

    __slots__ = ("at", "body", "count", "done", "key", "slot", "stored")

    def __init__(self, key: str, body: str, at: float, slot: int, count: int) -> None:
        self.key, self.body, self.at, self.slot, self.count = key, body, at, slot, count
        self.done = trio.Event()
        self.stored = False

    def position(self) -> Position:
        """What is stored beside the records, so that a restart knows of them."""
        value = {"key": self.key, "body": self.body, "count": self.count, "at": self.at}
        return Position(f"{_PREFIX}{self.slot}", value)


class BoundedMemo:
    """The keys of one source. Times are in seconds since the epoch."""

    def __init__(self, stored: Mapping[str, Mapping[str, Any]]) -> None:
        """`stored` are the source's positions."""
        self._outcomes: OrderedDict[str, Outcome] = OrderedDict()
        self._slot = 0
        found = [
            Outcome(value["key"], value["body"], value["at"], int(name[len(_PREFIX) :]),
                    value["count"])
            for name, value in stored.items() if name.startswith(_PREFIX)
        ]  # fmt: skip
        for outcome in sorted(found, key=lambda each: each.at):
            self._slot = (outcome.slot + 1) % KEPT
            self._outcomes[outcome.key] = outcome
            self._settle(outcome, stored=True)

    def find(self, key: str, now: float) -> Outcome | None:
        """What is known of a key's request."""
        outcome = self._outcomes.get(key)
        if outcome is None or (outcome.done.is_set() and now - outcome.at > KEPT_S):
            return None
        return outcome

    def begin(self, key: str, body: bytes, count: int, now: float) -> Outcome | None:
        """Note that a request is under way; None if too many are."""
        while len(self._outcomes) >= KEPT:
            oldest = next(iter(self._outcomes.values()))
            if not oldest.done.is_set():
                return None
            del self._outcomes[oldest.key]
        outcome = self._outcomes[key] = Outcome(key, fingerprint(body), now, self._slot, count)
        self._outcomes.move_to_end(key)
        self._slot = (self._slot + 1) % KEPT
        return outcome

    def end(self, outcome: Outcome, *, stored: bool) -> None:
        """Note how it ended; what was not stored may come again."""
        self._settle(outcome, stored=stored)
        if not stored and self._outcomes.get(outcome.key) is outcome:
            del self._outcomes[outcome.key]

    @staticmethod
    def _settle(outcome: Outcome, *, stored: bool) -> None:
        outcome.stored = stored
        outcome.done.set()


def scoped(key: str, authorization: str) -> str:
    """A key as that of one sender; nothing of either can be read from it."""
    digest = hashlib.blake2b(key.encode(), digest_size=_DIGEST_BYTES, person=b"idempotency-key")
    digest.update(b"\0" + authorization.encode())
    return digest.hexdigest()


def fingerprint(body: bytes) -> str:
    """Tells one body from another, so that a key that is used twice by mistake loses nothing."""
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES).hexdigest()
