"""Bounds the memory that incomplete messages take, and decides which one goes when it runs out.

A message is the body of an HTTP request, or a long RELP frame.
"""

from __future__ import annotations

from typing import Final

import trio

from siemrelay.core.errors import SiemrelayError

# Held at a time by all requests together: a few of the largest bodies, or very many usual ones.
_HELD_BODIES: Final = 4
_HELD_BYTES: Final = 64 << 20


class OutOfMemory(SiemrelayError):
    """All requests together hold as much memory as they may: the sender must come again."""


class HeldBody:
    """A request's body, and the memory that is counted for the request.

    `trusted` says that the head proved who the sender is. Use it in a `with` block, which gives
    back what it counted. When another request needs the memory, `displaced` is set and `scope` is
    cancelled.
    """

    def __init__(self, memory: BodyMemory, *, trusted: bool) -> None:
        self.data = b""
        self.trusted, self.held_bytes, self.began_at = trusted, 0, trio.current_time()
        self.scope: trio.CancelScope | None = None
        self.displaced = False
        self._memory = memory

    def hold(self, more_bytes: int) -> None:
        """Count memory for this request; below 0 gives it back.

        Raises OutOfMemory when all requests together hold as much as they may, and none that holds
        more than this one is still arriving.
        """
        self._memory.take(self, more_bytes)

    def __enter__(self) -> HeldBody:
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.take(self, -self.held_bytes)


class BodyMemory:
    """The memory that all requests of one server may hold together: 64 MiB, or four largest bodies.

    Half of it is reserved for trusted senders. When it runs out, the body goes that has held most
    for longest while it arrives: a sender that fills the memory and waits loses its request, and
    not the sender that comes last: see test_bodies_that_never_end_make_room_for_a_real_sender.
    """

    def __init__(self, body_bytes: int) -> None:
        """`body_bytes` is the largest body that is taken."""
        most_bytes = max(_HELD_BYTES, _HELD_BODIES * body_bytes)
        self._most_bytes = {True: most_bytes, False: most_bytes // 2}
        self._held = {True: 0, False: 0}
        self._arriving = set[HeldBody]()

    def arriving(self, body: HeldBody, scope: trio.CancelScope | None) -> None:
        """Note that a body arrives in that scope; None once it is whole."""
        if scope is None:
            self._arriving.discard(body)
        elif body not in self._arriving:
            body.scope, body.began_at = scope, trio.current_time()
            self._arriving.add(body)

    def take(self, body: HeldBody, more_bytes: int) -> None:
        """See `HeldBody.hold`."""
        body.held_bytes += more_bytes
        self._held[body.trusted] += more_bytes
        if more_bytes <= 0:
            return
        while self._held[False] > self._most_bytes[False]:
            self._make_room(body, [each for each in self._arriving if not each.trusted])
        while sum(self._held.values()) > self._most_bytes[True]:
            untrusted = [each for each in self._arriving if not each.trusted]
            self._make_room(body, untrusted or list(self._arriving))

    def _make_room(self, wanting: HeldBody, arriving: list[HeldBody]) -> None:
        now = trio.current_time()
        most = max(arriving, key=lambda each: each.held_bytes * (now - each.began_at), default=None)
        if most is None or most is wanting or not most.held_bytes:
            raise OutOfMemory
        assert most.scope is not None, "it is arriving"
        most.displaced = True
        most.scope.cancel()
        self._arriving.discard(most)
        self._held[most.trusted] -= most.held_bytes
        most.held_bytes = 0
