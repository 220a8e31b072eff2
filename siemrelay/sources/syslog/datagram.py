"""Syslog in datagrams, UDP and Unix: read in batches.

Nobody sends a lost datagram again. Those that the kernel has dropped are counted (SO_MEMINFO), and
a stop empties the kernel's buffer first.
"""

from __future__ import annotations

import math
import socket
import struct
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import trio

from siemrelay.core.memo import BoundedMemo
from siemrelay.decoders.syslog.host import with_host
from siemrelay.net.peers import is_within
from siemrelay.sources.contract import Intake, Records, joined
from siemrelay.sources.syslog.address import SyslogAddress
from siemrelay.sources.syslog.listener import SourceActivity, SyslogListener
from siemrelay.sources.syslog.options import SyslogOptions
from siemrelay.wire.gelf import FIRST_BYTES, GelfReader

# Datagrams taken in one turn of the loop: a few milliseconds of work, enough for a shared commit.
_TURN: Final = 1024

# A socket that holds less than this is read within this time: it could overflow while it waited for
# the relay's `batch_window`.
_LARGE_BUFFER_BYTES: Final = 1 << 20
_SHORT_WAIT_S: Final = 0.005

# UDP's largest is 65,507 bytes; on a Unix socket the sender's buffer is the limit (some 200 KiB).
_DATAGRAM_BYTES: Final = 1 << 20

# Chunks of incomplete GELF messages: anybody who can send datagrams could have the relay hold more.
_CHUNKS_BYTES: Final = 8 << 20

# Senders that are remembered at a time as let in or not.
_PEERS: Final = 10_000

# On a stop, datagrams that are still in the kernel are handed over within this time.
_LAST_S: Final = 1.0

# The kernel is asked how many it dropped after every batch, and this often.
_ASK_S: Final = 1.0

# asm-generic/socket.h; Python has no names for them.
_SO_RCVBUFFORCE: Final = 33
_SO_MEMINFO: Final = 55
# linux/sock_diag.h: nine numbers, the last one the socket's drops, as SO_RXQ_OVFL counts them; but
# it can be asked for when nothing comes any more.
_MEMINFO: Final = struct.Struct("9I")
_DROPS: Final = 8

_AROUND: Final = b"\r\n\0"


class DatagramListener(SyslogListener):
    """Receives the datagrams of one address.

    While the buffer on disk has no room, the kernel's own buffer fills and then drops: counted as
    `lost`.
    """

    def __init__(
        self, address: SyslogAddress, options: SyslogOptions, intake: Intake, log: Any,
        activity: SourceActivity,
    ) -> None:  # fmt: skip
        super().__init__(address, options, intake, log, activity)
        self._log, self._listen, self._networks = log, str(address), options.networks
        self._by_peer = bool(
            (self._networks or self._rate or options.add_host) and not self._is_local
        )
        self._allowed = BoundedMemo[str, bool](lambda peer: is_within(peer, self._networks), _PEERS)
        self._buffer = bytearray(_DATAGRAM_BYTES)
        self._gelf = GelfReader(options.max_record_size, _CHUNKS_BYTES, self._chunks_lost)

    async def prepare(self) -> None:
        """No file is needed."""

    async def run(
        self, sockets: list[trio.socket.SocketType],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:  # fmt: skip
        """Serve until cancelled; hands over what has arrived, then closes the sockets.

        It has started once every drop from then on will be counted.
        """
        async with trio.open_nursery() as nursery:
            for sock in sockets:
                await nursery.start(self._drain, sock)
            task_status.started()

    def _enlarge(self, sock: trio.socket.SocketType) -> int:
        """Give the socket its buffer; returns the bytes that the kernel grants."""
        wanted = self._options.receive_buffer
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, wanted)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted)
        got = (
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
        )  # the kernel reports twice that
        if got < wanted:
            self._log.warning(
                "the kernel gives a smaller receive buffer than asked for",
                listen=self._listen, bytes=got, wanted=wanted,
                advice=f"sysctl -w net.core.rmem_max={wanted}, or the capability CAP_NET_ADMIN",
            )  # fmt: skip
        return got

    async def _drain(
        self, sock: trio.socket.SocketType, task_status: trio.TaskStatus[None]
    ) -> None:
        pending = deque[Records]()
        with sock:
            longest_s = _SHORT_WAIT_S if self._enlarge(sock) < _LARGE_BUFFER_BYTES else math.inf
            # A socket passed by systemd may have dropped some before this process read it.
            dropped = _drops(sock)
            task_status.started()
            full = False
            try:
                while True:
                    with trio.move_on_after(_ASK_S):
                        await trio.lowlevel.wait_readable(sock)
                        if not full:
                            await self._intake.turn(longest_s)
                    dropped = self._count_drops(sock, dropped)
                    self._gelf.expire(trio.current_time())
                    datagrams = self._taken(sock)
                    if datagrams:
                        self._activity.arrived_at = trio.current_time()
                        pending.extend(joined(datagrams))
                        await self._hand_over(pending)
                    full = len(datagrams) == _TURN
            finally:
                # They are no longer in the kernel: this process has the only copy.
                with trio.CancelScope(shield=True, deadline=trio.current_time() + _LAST_S):
                    await self._hand_over(pending)
                    while datagrams := self._taken(sock):
                        pending.extend(joined(datagrams))
                        await self._hand_over(pending)
                self._gelf.close()
                self._count_drops(sock, dropped)
                left = sum(records.count for records in pending)
                if left:
                    self._intake.lost(left)
                    self._log.warning("stopped before datagrams could be stored",
                                      listen=self._listen, upstream_dropped=left)  # fmt: skip

    async def _hand_over(self, pending: deque[Records]) -> None:
        while pending:
            await self._intake.offer(pending[0])
            pending.popleft()

    def _count_drops(self, sock: trio.socket.SocketType, before: int) -> int:
        now = _drops(sock)
        more = (now - before) % (1 << 32)
        if more:
            self._intake.lost(more)
            self._rejections.warn(
                "dropped", "the kernel dropped datagrams", since_start=now,
                advice="raise `receive_buffer` (and net.core.rmem_max), or look at why the disk "
                "buffer takes no more",
            )  # fmt: skip
        return now

    def _chunks_lost(self, messages: int) -> None:
        self._intake.lost(messages)
        self._rejections.warn(
            "chunks", "GELF messages are incomplete: some of their chunks have not come",
            advice="send them over TCP, or uncompressed and smaller than a datagram",
        )  # fmt: skip

    def _taken(self, sock: trio.socket.SocketType) -> list[bytes]:
        """The datagrams that wait now, at most _TURN of them."""
        # A system call for each: recvmmsg by ctypes halves its 1.4 µs, of 12 that a datagram costs
        # in all, and where memory may not be made executable ctypes itself may not load.
        buffer, view, found = self._buffer, memoryview(self._buffer), list[bytes]()
        descriptor = socket.socket(fileno=sock.fileno())
        try:
            receive, by_peer, where = descriptor.recv_into, self._by_peer, None
            limit = min(self._options.max_record_size, _DATAGRAM_BYTES)
            with suppress(BlockingIOError):
                for _ in range(_TURN):
                    if by_peer:
                        size, where = descriptor.recvfrom_into(buffer, 0, socket.MSG_TRUNC)
                        if not self._is_admitted(where[0]):
                            continue
                    else:
                        size = receive(buffer, 0, socket.MSG_TRUNC)
                    if size > limit:
                        self._intake.oversize(size)
                    datagram = bytes(view[:size])
                    if datagram[:1] in FIRST_BYTES:
                        datagram = self._gelf.message(datagram, trio.current_time())
                    datagram = datagram.rstrip(_AROUND)
                    if datagram and self._options.add_host:
                        host = self._host_of(where[0] if where else "")
                        datagram = with_host(datagram, host, datetime.now(UTC))
                    if datagram:
                        found.append(datagram)
        finally:
            descriptor.detach()
        return found

    def _is_admitted(self, peer: str) -> bool:
        if self._networks and not self._allowed[peer]:
            self._rejections.reject(
                "address",
                peer,
                "it is in none of the networks of `allow`",
                event="datagrams refused",
            )
            return False
        if self._rate is None or self._rate.admits(peer, trio.current_time()):
            return True
        self._rejections.reject(
            "rate", peer, "it sends more than `rate`", event="datagrams refused"
        )
        return False


def _drops(sock: trio.socket.SocketType) -> int:
    try:
        meminfo = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
    except OSError:  # a kernel before 4.12
        return 0
    return int(_MEMINFO.unpack(meminfo)[_DROPS])
