"""Connections taken from listening sockets, within bounds that no single peer can use up."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, Protocol

import trio

from siemrelay.net.refusals import Refusals

# Dead peers are found out by the kernel: after a minute's silence, three questions.
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 20), (socket.TCP_KEEPCNT, 3))

# accept(2) fails so while the process or the machine is out of something; it passes.
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_EXHAUSTED_PAUSE_S: Final = 0.1

_CREDENTIALS: Final = struct.Struct("3i")
"""struct ucred of unix(7): process, user, group."""


class ConnectionObserver(Protocol):
    """What a listener reports of its connections; a source's intake is one."""

    def connected(self, change: int) -> None:
        """Note that so many connections more (or fewer, below 0) are open."""

    def progress(self) -> None:
        """Note that the listener is alive though it has nothing to hand over."""

    def refused(self, reason: str, records: int = 1) -> None:
        """Count what was rejected; `reason` is one of a few fixed words."""


class Door:
    """Accepts at the sockets of one address: so many at a time, of each peer no more than half.

    Who is over the total waits in the kernel; a peer that has too many, or is in none of the
    `networks` (unless there are none), is closed at once and counted. With `proxied`, one peer may
    stand for many, and have all.
    """

    def __init__(
        self, networks: list[IPv4Network | IPv6Network], most: int, refusals: Refusals,
        *, proxied: bool = False,
    ) -> None:  # fmt: skip
        self._networks, self._refusals = networks, refusals
        self._free = trio.Semaphore(most)
        self._most_of_one = most if proxied else max(most // 2, 1)
        self._open = Counter[str]()

    async def serve(
        self,
        sockets: list[trio.socket.SocketType],
        serve_one: Callable[[trio.SocketStream, str], Awaitable[None]],
    ) -> None:
        """Run `serve_one(stream, peer)` for each connection until cancelled; closes all of them.

        A peer is an address, or on a Unix socket a user.
        """
        async with trio.open_nursery() as nursery:
            for sock in sockets:
                nursery.start_soon(self._accept, sock, serve_one, nursery)

    async def _accept(
        self,
        sock: trio.socket.SocketType,
        serve_one: Callable[[trio.SocketStream, str], Awaitable[None]],
        nursery: trio.Nursery,
    ) -> None:
        listener = trio.SocketListener(sock)
        async with listener:
            while True:
                await self._free.acquire()
                try:
                    stream = await listener.accept()
                except OSError as error:
                    self._free.release()
                    if error.errno not in _EXHAUSTED:
                        raise
                    self._refusals.tell(
                        "exhausted", "cannot accept connections now, trying again",
                        error=os.strerror(error.errno),
                        advice="raise LimitNOFILE, or lower `max_connections`",
                    )  # fmt: skip
                    await trio.sleep(_EXHAUSTED_PAUSE_S)
                except BaseException:
                    self._free.release()
                    raise
                else:
                    nursery.start_soon(self._admit, stream, serve_one)

    async def _admit(
        self,
        stream: trio.SocketStream,
        serve_one: Callable[[trio.SocketStream, str], Awaitable[None]],
    ) -> None:
        peer = ""
        try:
            peer = _peer_of(stream.socket)
            self._open[peer] += 1
            if self._is_let_in(stream.socket, peer):
                await serve_one(stream, peer)
        finally:
            self._open[peer] -= 1
            if self._open[peer] <= 0:
                del self._open[peer]
            self._free.release()
            await trio.aclose_forcefully(stream)

    def _is_let_in(self, sock: trio.socket.SocketType, peer: str) -> bool:
        if not peer:
            return False  # gone before it could be asked who it is
        local = sock.family == socket.AF_UNIX
        if self._networks and not local and not is_within(peer, self._networks):
            self._refusals.refuse("address", peer, "it is in none of the networks of `allow`")
            return False
        if self._open[peer] > self._most_of_one:
            self._refusals.refuse(
                "connections", peer, "it has half of `max_connections` open already"
            )
            return False
        return True


def _peer_of(sock: trio.socket.SocketType) -> str:
    """Who is at the other end; nobody if it is gone already."""
    try:
        if sock.family == socket.AF_UNIX:
            told = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            return f"user {_CREDENTIALS.unpack(told)[1]}"
        for option, value in _KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return str(sock.getpeername()[0])
    except OSError:
        return ""


def is_within(host: str, networks: list[IPv4Network | IPv6Network]) -> bool:
    """Whether an address as the kernel writes it is in one of the networks."""
    peer = ip_address(plain_address(host))
    return any(peer in network for network in networks)


def plain_address(host: str) -> str:
    """An address as the kernel writes it, without a zone, IPv4 as such on a socket for both."""
    address = host.partition("%")[0]
    if not address.startswith("::ffff:"):
        return address
    mapped = ip_address(address)
    assert isinstance(mapped, IPv6Address)
    return str(mapped.ipv4_mapped or mapped)
