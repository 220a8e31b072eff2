"""Connections accepted from listening sockets, within limits that no single peer can use up."""

from __future__ import annotations

import errno
import math
import os
import socket
import struct
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Final

import trio

from siemrelay.net.peers import group_of, is_within
from siemrelay.net.rejection_log import RejectionLog
from siemrelay.net.tasks import Broadcast

# The kernel finds dead peers: after a minute of silence, three probes.
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 20), (socket.TCP_KEEPCNT, 3))

# accept(2) fails so while the process or the machine has run out of something; it passes.
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_EXHAUSTED_PAUSE_S: Final = 0.1

_CREDENTIALS: Final = struct.Struct("3i")
"""struct ucred of unix(7): process, user, group."""

# When every slot is taken, a connection idle for this long gives its slot to a new one. Peers in
# the middle of a message, or between two, send within it.
_EVICTABLE_AFTER_S: Final = 1.0

# A slot is free as soon as its connection is cancelled, though a stream is still read to its end,
# for up to two seconds; so many may be closing at a time.
_CLOSING: Final = 64

# While no connection is idle for that long, this often the idlest is looked for again.
_EVICT_AGAIN_S: Final = 0.2

# Of all listeners together: each connection holds up to 64 KiB of an incomplete message.
_PROCESS_CONNECTIONS: Final = 8192


@dataclass(eq=False, slots=True)
class AcceptedConnection:
    """One accepted connection, and the state that decides whether it gives its slot to another.

    `peer` is an address as the kernel writes it, or the user of a Unix socket. `group` is what
    limits per peer count by: see `group_of`. Times are of trio's clock. The handler keeps up to
    date `active_at` (when the peer last sent something), `has_sent` (whether a message has come),
    `proven` (whether the peer has shown a credential) and `busy` (the peer waits for an answer: the
    connection is not closed for another one). `displaced`: it gave its slot to another one.
    """

    stream: trio.SocketStream
    peer: str
    group: str
    accepted_at: float
    active_at: float
    has_sent: bool = False
    proven: bool = False
    busy: bool = False
    displaced: bool = False
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    @property
    def idle_since(self) -> float:
        """When it last was of use: bytes that are no message yet keep no slot."""
        return self.active_at if self.has_sent else self.accepted_at


Handler = Callable[[AcceptedConnection], Awaitable[None]]


class _ProcessSlots:
    """The connections of all listeners of the process that share one limit."""

    def __init__(self) -> None:
        self.reserved = 0
        self.limiters = set[ConnectionLimiter]()
        self.freed = Broadcast()


_process: Final = trio.lowlevel.RunVar[_ProcessSlots]("slots of connections")


class ConnectionLimiter:
    """Accepts at the sockets of one address, at most `most` connections at a time.

    A peer in none of the `networks` (unless there are none) is closed at once and counted, and so
    is one that has `most_of_one` connections open: half of `most` by default. With `proxied` one
    peer may stand for many, and may have them all.

    When `most` are open and another peer connects, the idlest connection of the group that has the
    most is closed, so that hoarding peers displace themselves and no peer with a single
    connection; checked by test_a_hoard_of_idle_connections_gives_way_to_a_newcomer. A connection
    whose peer has shown a credential is closed only when no other is idle. While none is idle for a
    second, new connections wait in the accept backlog.

    All listeners together have 8,192 slots. When those are taken, the listener with the most
    connections gives one up in the same way. Not so with `apart`: the endpoint's are its own.
    """

    def __init__(
        self, networks: list[IPv4Network | IPv6Network], most: int, rejections: RejectionLog,
        *, most_of_one: int | None = None, proxied: bool = False, apart: bool = False,
        most_of_all: int = _PROCESS_CONNECTIONS, evictable_after_s: float = _EVICTABLE_AFTER_S,
    ) -> None:  # fmt: skip
        self._networks, self._rejections, self._most = networks, rejections, most
        self._most_of_one = most_of_one or (most if proxied else max(most // 2, 1))
        # One listener may be allowed more than the usual sum.
        self._most_of_all = max(most_of_all, most)
        self._reserved = self._closing = 0
        self._evictable_after_s = evictable_after_s
        self._open: defaultdict[str, set[AcceptedConnection]] = defaultdict(set)
        self._all = _ProcessSlots() if apart else _process_slots()

    async def serve(self, sockets: list[trio.socket.SocketType], handler: Handler) -> None:
        """Run `handler` for each connection until cancelled; closes all of them and the sockets."""
        self._all.limiters.add(self)
        try:
            async with trio.open_nursery() as nursery:
                for sock in sockets:
                    nursery.start_soon(self._accept, sock, handler, nursery)
        finally:
            self._all.limiters.discard(self)

    async def _accept(
        self, sock: trio.socket.SocketType, handler: Handler, nursery: trio.Nursery
    ) -> None:
        listener = trio.SocketListener(sock)
        async with listener:
            while True:
                if self._is_full():
                    await trio.lowlevel.wait_readable(sock)
                    await self._make_room()
                self._reserve(1)
                try:
                    stream = await listener.accept()
                except OSError as error:
                    self._reserve(-1)
                    if error.errno not in _EXHAUSTED:
                        raise
                    self._rejections.warn(
                        "exhausted", "cannot accept connections now, trying again",
                        error=os.strerror(error.errno),
                        advice="raise LimitNOFILE, or lower `max_connections`",
                    )  # fmt: skip
                    await trio.sleep(_EXHAUSTED_PAUSE_S)
                except BaseException:
                    self._reserve(-1)
                    raise
                else:
                    nursery.start_soon(self._handle, stream, handler)

    def _is_full(self) -> bool:
        return self._reserved >= self._most or self._all.reserved >= self._most_of_all

    async def _make_room(self) -> None:
        while self._is_full():
            crowded = self if self._reserved >= self._most else self._largest()
            idlest = crowded._idlest()
            if idlest is not None:
                limit = "`max_connections`" if crowded is self else "the limit of all listeners"
                crowded._rejections.reject(
                    "displaced", idlest.peer, f"it was the idlest when {limit} was reached"
                )
                crowded._displace(idlest)
                if crowded._closing < _CLOSING:
                    continue
            with trio.move_on_after(_EVICT_AGAIN_S if idlest is None else math.inf):
                await self._all.freed.wait()

    def _largest(self) -> ConnectionLimiter:
        return max(self._all.limiters, key=lambda each: (each._reserved, each is self))

    def _idlest(self) -> AcceptedConnection | None:
        """The connection to close for another one: the idlest of the largest group that has one.

        Those whose peers have shown a credential come last.
        """
        before = trio.current_time() - self._evictable_after_s
        groups = sorted(self._open.values(), key=len, reverse=True)
        for proven in (False, True):
            for group in groups:
                idle = [
                    each for each in group
                    if each.proven is proven and each.idle_since <= before
                    and not each.busy and not each.scope.cancel_called
                ]  # fmt: skip
                if idle:
                    return min(idle, key=lambda each: each.idle_since)
        return None

    def _displace(self, connection: AcceptedConnection) -> None:
        connection.displaced = True
        connection.scope.cancel()
        self._open[connection.group].discard(connection)
        self._closing += 1
        self._reserve(-1)

    def _reserve(self, change: int) -> None:
        """Take a slot, or give one back."""
        self._reserved += change
        self._all.reserved += change
        if change < 0:
            self._all.freed.wake_all()

    async def _handle(self, stream: trio.SocketStream, handler: Handler) -> None:
        peer = _peer_of(stream.socket)
        now = trio.current_time()
        connection = AcceptedConnection(stream, peer, group_of(peer), now, now)
        group = self._open[connection.group]
        group.add(connection)
        try:
            if self._is_admitted(connection, len(group)):
                with connection.scope:
                    await handler(connection)
        finally:
            group.discard(connection)
            if not group and self._open.get(connection.group) is group:
                del self._open[connection.group]
            if connection.displaced:
                self._closing -= 1
                self._all.freed.wake_all()
            else:
                self._reserve(-1)
            await trio.aclose_forcefully(stream)

    def _is_admitted(self, connection: AcceptedConnection, of_one: int) -> bool:
        peer = connection.peer
        if not peer:
            return False  # gone before its address could be asked for
        local = connection.stream.socket.family == socket.AF_UNIX
        if self._networks and not local and not is_within(peer, self._networks):
            self._rejections.reject("address", peer, "it is in none of the networks of `allow`")
            return False
        if of_one > self._most_of_one:
            self._rejections.reject(
                "connections", peer,
                f"{connection.group} has {self._most_of_one} connections open already, the most "
                "for one address",
            )  # fmt: skip
            return False
        return True


def _process_slots() -> _ProcessSlots:
    try:
        return _process.get()
    except LookupError:
        slots = _ProcessSlots()
        _process.set(slots)
        return slots


def _peer_of(sock: trio.socket.SocketType) -> str:
    """The address at the other end, or its user on a Unix socket; empty if it is gone already."""
    try:
        if sock.family == socket.AF_UNIX:
            found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            return f"user {_CREDENTIALS.unpack(found)[1]}"
        for option, value in _KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return str(sock.getpeername()[0])
    except OSError:
        return ""
