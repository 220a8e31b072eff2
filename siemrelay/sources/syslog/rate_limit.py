"""How fast each peer may send: `rate` messages a second, of which a second's worth is free."""

from __future__ import annotations

from typing import Final

# Peers that are remembered at a time; those whose account is even are forgotten first.
_PEERS: Final = 10_000

_FREE_S: Final = 1.0


class PeerRate:
    """An account for each peer: until when what it sent is paid for."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._paid: dict[str, float] = {}

    def charge(self, peer: str, count: int, now: float) -> float:
        """Note that `count` messages were taken; how long to take no more, in seconds."""
        until = self._until(peer, count, now)
        self._paid[peer] = until
        return max(until - _FREE_S - now, 0.0)

    def admits(self, peer: str, now: float) -> bool:
        """Whether one more message may be taken; it is noted if so."""
        until = self._until(peer, 1, now)
        if until > now + _FREE_S:
            return False
        self._paid[peer] = until
        return True

    def _until(self, peer: str, count: int, now: float) -> float:
        if len(self._paid) >= _PEERS and peer not in self._paid:
            self._paid = {who: until for who, until in self._paid.items() if until > now}
            if len(self._paid) >= _PEERS:
                # All of them owe: whoever was met first is forgotten, or the memory is not bounded.
                del self._paid[next(iter(self._paid))]
        return max(self._paid.get(peer, 0.0), now) + count / self._rate
