"""The rate limit per peer: `rate` messages a second, and a second's worth at once."""

from __future__ import annotations

from typing import Final

# Peers remembered at a time; those that are within their rate are forgotten first.
_PEERS: Final = 10_000

_BURST_S: Final = 1.0


class PeerRateLimiter:
    """Keeps for each peer the time up to which its rate has been used."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._used_until: dict[str, float] = {}

    def charge(self, peer: str, count: int, now: float) -> float:
        """Count messages that were taken; returns for how many seconds to take no more."""
        until = self._until(peer, count, now)
        self._used_until[peer] = until
        return max(until - _BURST_S - now, 0.0)

    def admits(self, peer: str, now: float) -> bool:
        """Whether one more message may be taken; if so, it is counted."""
        until = self._until(peer, 1, now)
        if until > now + _BURST_S:
            return False
        self._used_until[peer] = until
        return True

    def _until(self, peer: str, count: int, now: float) -> float:
        if len(self._used_until) >= _PEERS and peer not in self._used_until:
            self._used_until = {
                who: until for who, until in self._used_until.items() if until > now
            }
            if len(self._used_until) >= _PEERS:
                # All of them are over their rate. Forget the first seen: memory is bounded.
                del self._used_until[next(iter(self._used_until))]
        return max(self._used_until.get(peer, 0.0), now) + count / self._rate
