"""Bounds the memory that incomplete messages take, and decides which one goes when it runs out.

A message is the body of an HTTP request, or a long RELP frame. There are two bounds: one for a
source, and one for all sources of the process, since ten sources may hold ten times the first.
"""

from __future__ import annotations

from typing import Final

import trio

from siemrelay.core.errors import SiemrelayError

# Held at a time by all requests together: a few of the largest bodies, or very many usual ones.
_HELD_BODIES: Final = 4
_HELD_BYTES: Final = 64 << 20

# Of all sources. The unit of systemd allows 2 GiB: parsed and stored, a body takes some of its size
# again.
_PROCESS_BYTES: Final = 192 << 20


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
        self.memory = memory

    @property
    def authenticated(self) -> bool:
        """Whether its sender proved who it is, to a source that requires it."""
        return self.trusted and self.memory.authenticates

    def hold(self, more_bytes: int) -> None:
        """Count memory for this request; below 0 gives it back.

        Raises OutOfMemory when all requests together hold as much as they may, and none that holds
        more than this one is still arriving.
        """
        self.memory.take(self, more_bytes)

    def __enter__(self) -> HeldBody:
        return self

    def __exit__(self, *_: object) -> None:
        self.memory.take(self, -self.held_bytes)


class _ProcessMemory:
    """Memory held by the bodies of all sources, by sender, authenticated or not."""

    def __init__(self) -> None:
        self.held = {True: 0, False: 0}
        self.arriving = set[HeldBody]()


_process: Final = trio.lowlevel.RunVar[_ProcessMemory]("memory of bodies")


class BodyMemory:
    """The memory that all requests of one server may hold together: 64 MiB, or four largest bodies.

    Half of it is reserved for trusted senders. When it runs out, the body goes that has held most
    for longest while it arrives: a sender that fills the memory and waits loses its request, and
    not the sender that comes last: see test_bodies_that_never_end_make_room_for_a_real_sender.

    All servers of the process share 192 MiB, of which half is reserved for senders that a source
    has authenticated. When that runs out, a body of the source that holds most goes: a source below
    its share loses none to one above, see test_a_source_that_hoards_loses_its_own_bodies.
    """

    def __init__(self, body_bytes: int, *, authenticates: bool = False) -> None:
        """`body_bytes` is the largest body that is taken.

        `authenticates` says that a trusted sender has shown a credential.
        """
        most_bytes = max(_HELD_BYTES, _HELD_BODIES * body_bytes)
        self.authenticates = authenticates
        self._most_bytes = {True: most_bytes, False: most_bytes // 2}
        self._held = {True: 0, False: 0}
        try:
            self._process = _process.get()
        except LookupError:
            self._process = _ProcessMemory()
            _process.set(self._process)

    @property
    def held_bytes(self) -> int:
        """The memory that all its bodies hold now."""
        return self._held[True] + self._held[False]

    def arriving(self, body: HeldBody, scope: trio.CancelScope | None) -> None:
        """Note that a body arrives in that scope; None once it is whole."""
        if scope is None:
            self._process.arriving.discard(body)
        elif body not in self._process.arriving:
            body.scope, body.began_at = scope, trio.current_time()
            self._process.arriving.add(body)

    def take(self, body: HeldBody, more_bytes: int) -> None:
        """See `HeldBody.hold`."""
        self._count(body, more_bytes)
        if more_bytes <= 0:
            return
        while self._held[False] > self._most_bytes[False]:
            self._make_room(body, self._own(trusted=False))
        while self.held_bytes > self._most_bytes[True]:
            self._make_room(body, self._own(trusted=False) or self._own(trusted=True))
        process = self._process
        while process.held[False] > _PROCESS_BYTES // 2:
            self._make_room(body, self._of_the_largest(authenticated=False))
        while sum(process.held.values()) > _PROCESS_BYTES:
            self._make_room(
                body,
                self._of_the_largest(authenticated=False)
                or self._of_the_largest(authenticated=True),
            )

    def _count(self, body: HeldBody, more_bytes: int) -> None:
        body.held_bytes += more_bytes
        self._held[body.trusted] += more_bytes
        self._process.held[body.authenticated] += more_bytes

    def _own(self, *, trusted: bool) -> list[HeldBody]:
        return [
            each for each in self._process.arriving
            if each.memory is self and each.trusted is trusted
        ]  # fmt: skip

    def _of_the_largest(self, *, authenticated: bool) -> list[HeldBody]:
        """The arriving bodies of the source that holds most, this one's if they are equal."""
        found = [each for each in self._process.arriving if each.authenticated is authenticated]
        largest = max(
            (each.memory for each in found), default=None,
            key=lambda memory: (memory.held_bytes, memory is self),
        )  # fmt: skip
        if largest is None or largest.held_bytes < self.held_bytes:
            largest = self
        return [each for each in found if each.memory is largest]

    def _make_room(self, wanting: HeldBody, arriving: list[HeldBody]) -> None:
        now = trio.current_time()
        most = max(
            arriving, default=None,
            key=lambda each: (each.held_bytes * (now - each.began_at), each is not wanting),
        )  # fmt: skip
        if most is None or most is wanting or not most.held_bytes:
            raise OutOfMemory
        assert most.scope is not None, "it is arriving"
        most.displaced = True
        most.scope.cancel()
        self._process.arriving.discard(most)
        most.memory.forget(most)

    def forget(self, body: HeldBody) -> None:
        """Count nothing any more for a body that was displaced."""
        self._count(body, -body.held_bytes)
