"""Syslog in datagrams, UDP and Unix: drained in batches, and every loss that is known counted."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from ipaddress import ip_network
from typing import Any, Final, Protocol

import trio

from siemrelay.sources.contract import Intake, joined
from siemrelay.sources.listening import Address, is_within
from siemrelay.sources.stream_listener import Activity

# Datagrams taken in one turn of the loop: a few milliseconds of work, enough for a shared commit.
_TURN: Final = 1024

# After what was just taken, the pause before the next look: a datagram after a quiet time goes at
# once, those in quick succession go together, which costs a batch for all instead of one each.
_GATHER_S: Final = 0.002

# UDP's largest is 65,507 bytes; on a Unix socket the sender's buffer is the limit (some 200 KiB).
_DATAGRAM_BYTES: Final = 1 << 20

# Senders whose rate is remembered at a time.
_PEERS: Final = 10_000

# How often the kernel is asked what it dropped, beside after every batch.
_ASK_S: Final = 1.0

# asm-generic/socket.h; Python has no names for them.
_SO_RCVBUFFORCE: Final = 33
_SO_MEMINFO: Final = 55
# linux/sock_diag.h: nine numbers, the last one the socket's drops, as SO_RXQ_OVFL counts them; but
# it can be asked for when nothing comes any more.
_MEMINFO: Final = struct.Struct("9I")
_DROPS: Final = 8

_AROUND: Final = b"\r\n\0"


class DatagramLimits(Protocol):
    """What a datagram listener asks of the source's options."""

    @property
    def receive_buffer(self) -> int: ...
    @property
    def max_record_size(self) -> int: ...
    @property
    def allow(self) -> list[str]: ...
    @property
    def rate(self) -> float | None: ...


class DatagramListener:
    """Takes what comes to the sockets of one address.

    While the buffer on disk has no room, the kernel's own buffer fills and then drops: counted as
    `lost`.
    """

    def __init__(
        self, address: Address, options: DatagramLimits, intake: Intake, log: Any,
        activity: Activity,
    ) -> None:  # fmt: skip
        self._address, self._options, self._intake = address, options, intake
        self._log, self._activity = log, activity
        self._networks = [ip_network(text) for text in options.allow]
        self._by_peer = bool((self._networks or options.rate) and not address.path)
        self._paid: dict[str, float] = {}
        self._buffer = bytearray(_DATAGRAM_BYTES)

    async def run(self, sockets: list[trio.socket.SocketType]) -> None:
        """Serve until cancelled; closes the sockets. What was read is handed over before."""
        async with trio.open_nursery() as nursery:
            for sock in sockets:
                self._enlarge(sock)
                nursery.start_soon(self._drain, sock)

    def _enlarge(self, sock: trio.socket.SocketType) -> None:
        wanted = self._options.receive_buffer
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, wanted)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted)
        got = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2  # the kernel tells twice it
        if got < wanted:
            self._log.warning(
                "the kernel gives a smaller receive buffer than asked for",
                listen=str(self._address), bytes=got, wanted=wanted,
                advice=f"sysctl -w net.core.rmem_max={wanted}, or the capability CAP_NET_ADMIN",
            )  # fmt: skip

    async def _drain(self, sock: trio.socket.SocketType) -> None:
        dropped = 0
        with sock:
            while True:
                with trio.move_on_after(_ASK_S):
                    await trio.lowlevel.wait_readable(sock)
                datagrams = self._taken(sock)
                if datagrams:
                    self._activity.arrived_at = trio.current_time()
                    # Taken from the kernel: nobody else has them any more.
                    with trio.CancelScope(shield=True):
                        for records in joined(datagrams):
                            await self._intake.offer(records)
                    await trio.sleep(_GATHER_S if len(datagrams) < _TURN else 0)
                now_dropped = _drops(sock)
                self._intake.lost((now_dropped - dropped) % (1 << 32))
                dropped = now_dropped

    def _taken(self, sock: trio.socket.SocketType) -> list[bytes]:
        """What is there now, at most a turn's worth."""
        buffer, view, found = self._buffer, memoryview(self._buffer), list[bytes]()
        descriptor = socket.socket(fileno=sock.fileno())
        try:
            receive, by_peer = descriptor.recv_into, self._by_peer
            limit = min(self._options.max_record_size, _DATAGRAM_BYTES)
            with suppress(BlockingIOError):
                for _ in range(_TURN):
                    if by_peer:
                        size, where = descriptor.recvfrom_into(buffer, 0, socket.MSG_TRUNC)
                        if not self._let_in(where[0]):
                            continue
                    else:
                        size = receive(buffer, 0, socket.MSG_TRUNC)
                    if size > limit:
                        self._intake.oversize(size)
                    found.append(bytes(view[:size]))
        finally:
            descriptor.detach()
        return [each for datagram in found if (each := datagram.rstrip(_AROUND))]

    def _let_in(self, peer: str) -> bool:
        if self._networks and not is_within(peer, self._networks):
            self._intake.refused("address")
            return False
        rate = self._options.rate
        if rate is None:
            return True
        now = trio.current_time()
        if len(self._paid) >= _PEERS:
            self._paid = {who: until for who, until in self._paid.items() if until > now}
        until = max(self._paid.get(peer, 0.0), now) + 1 / rate
        if until > now + 1.0:  # a second's worth is free
            self._intake.refused("rate")
            return False
        self._paid[peer] = until
        return True


def _drops(sock: trio.socket.SocketType) -> int:
    try:
        told = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
    except OSError:  # a kernel before 4.12
        return 0
    return int(_MEMINFO.unpack(told)[_DROPS])
