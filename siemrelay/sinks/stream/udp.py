"""The UDP sink: one message per datagram (RFC 5426), or GELF chunks.

Confirmed means that the kernel took the datagram, no more. If nobody listens, the receiver's
machine answers by ICMP, and the kernel reports that at the next call on the socket. The report is
about a datagram sent *before*, often of a batch that was confirmed already, so it cannot refuse one
message. It ends the session, and the current batch is sent again as a whole; datagrams sent just
before the report are lost.
"""

from __future__ import annotations

import errno
import math
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, Literal

import trio
from pydantic import Field, ValidationInfo, field_validator

from siemrelay.core.errors import SinkWaits
from siemrelay.core.options import Options, Port, Size, show_seconds
from siemrelay.net.tcp_client import resolve
from siemrelay.sinks.contract import (
    BatchLimits,
    ProtocolKind,
    Refusal,
    Report,
    Settlement,
    no_report,
)
from siemrelay.sinks.stream.servers import Server, addresses
from siemrelay.wire.gelf import GelfDatagrams, largest_message

# The largest payload of one IPv4 datagram: 65535 less the IP (20) and UDP (8) headers.
MAX_DATAGRAM_BYTES: Final = 65507

# With 28 bytes of IP and UDP headers within an Ethernet frame of 1500, and room for a tunnel's: the
# network need not cut a chunk again, and lose the message with any piece of it.
_CHUNK_BYTES: Final = 1420

# Room for any event's shortest form in 128 chunks, and what some parts of Graylog take at most.
_LEAST_CHUNK_BYTES: Final = 512
_LARGEST_CHUNK_BYTES: Final = 8192

# A task that never waits starves the others: after so many datagrams they get a turn.
_TURN: Final = 64

# A receiver's buffer has 212,992 bytes on Linux if nobody raised it (net.core.rmem_default), and
# the kernel charges a datagram of 400 bytes with 768 or more: 277 fit while the receiver is busy
# elsewhere. So few leave at once, and at the default rate the buffer bridges 50 ms (measured with
# rsyslog by test_a_backlog_reaches_rsyslog_without_a_gap).
_DATAGRAMS_AT_ONCE: Final = 32
_DATAGRAM_BYTES: Final = 1024  # a larger datagram counts as several
_RATE: Final = 5000

# What one `send` takes at most: it lasts a fraction of a second, and is all that a stop repeats.
_BATCH_S: Final = 0.1

# A full interface queue drains in well under this.
_QUEUE_PAUSE_S: Final = 0.005


class UdpOptions(Options):
    """Options of `protocol: udp`."""

    server: Server = Field(
        description="host name or address of the receiver, maybe with its port (`name:port`)"
    )
    port: Port = Field(514, description="its UDP port")
    framing: Literal["none", "gelf"] = Field(
        "none",
        description="`none`: each message is one datagram (RFC 5426); `gelf`: longer ones go in "
        "chunks, which Graylog joins",
    )
    chunk_size: Annotated[Size, Field(ge=_LEAST_CHUNK_BYTES, le=_LARGEST_CHUNK_BYTES)] = Field(
        _CHUNK_BYTES, description="with `framing: gelf`: the largest datagram"
    )
    compression: Literal["gzip", "none"] = Field(
        "gzip", description="with `framing: gelf`: of messages over one datagram"
    )

    rate: int = Field(
        _RATE, ge=0, le=1_000_000,
        description="the most datagrams a second, of up to 1 KiB each (a larger one counts as "
        "several); 0: as fast as the kernel takes them, of which receivers lose some",
    )  # fmt: skip

    @field_validator("chunk_size", "compression")
    @classmethod
    def _chunks_are_gelf(cls, value: Any, info: ValidationInfo) -> Any:
        if info.data.get("framing") == "none":
            raise ValueError("needs `framing: gelf`: only Graylog joins datagrams")
        return value


Datagrams = Callable[[bytes], Sequence[bytes]]
"""A message → the datagrams that carry it, in order; none if it is too large."""


def one_each(message: bytes) -> Sequence[bytes]:
    """A message as one datagram."""
    return (message,)


def _largest_message(options: UdpOptions) -> int:
    chunked = options.framing == "gelf"
    return largest_message(options.chunk_size) if chunked else MAX_DATAGRAM_BYTES


def _limits(options: UdpOptions) -> BatchLimits:
    return BatchLimits(max(int(options.rate * _BATCH_S), 1) if options.rate else None)


class DatagramPacer:
    """Spreads datagrams over time: `rate` a second, and few at once."""

    def __init__(self, rate: int) -> None:
        self._rate, self._at_once_s = rate, _DATAGRAMS_AT_ONCE / rate
        self._used_until_s = 0.0

    async def wait(self, datagram_bytes: int) -> None:
        """Wait until a datagram of that size may leave; it counts as sent."""
        now_s = trio.current_time()
        charge_s = (1 + datagram_bytes // _DATAGRAM_BYTES) / self._rate
        ahead_s = max(self._used_until_s - now_s, 0.0)
        self._used_until_s = now_s + ahead_s + charge_s
        if ahead_s + charge_s > self._at_once_s and ahead_s:
            # As long as it takes for half of those at once, so that timers are few.
            await trio.sleep(ahead_s + charge_s - self._at_once_s / 2)


class UdpSink:
    """Messages as UDP datagrams to one address."""

    def __init__(self, options: UdpOptions) -> None:
        self._options = options
        self._datagrams: Datagrams = one_each
        if options.framing == "gelf":
            self._datagrams = GelfDatagrams(
                options.chunk_size, int.from_bytes(os.urandom(8), "big"),
                compress=options.compression == "gzip",
            ).of  # fmt: skip

    @asynccontextmanager
    async def session(self, report: Report = no_report) -> AsyncIterator[DatagramSession]:
        """See `sinks.contract.Sink`. Connecting sends nothing; it makes the kernel report ICMP."""
        (server,) = addresses(self._options.server, self._options.port)
        found = await resolve(server, socket.SOCK_DGRAM, report)
        with _connected(server.host, found) as sock:
            address = sock.getpeername()
            report("connect", f"{address[0]} port {address[1]} (UDP: nothing is sent to connect)")
            yield DatagramSession(
                sock, str(server), report,
                gone="nobody listens there (ICMP port unreachable); is the receiver running?",
                answer="none: UDP has no answer; look for the event at the receiver",
                datagrams=self._datagrams,
                pacer=DatagramPacer(self._options.rate) if self._options.rate else None,
            )  # fmt: skip


def _connected(server: str, found: Sequence[tuple[Any, ...]]) -> socket.socket:
    """A socket connected to the first address with a route; raises SinkWaits if none has one."""
    reason = "no address"
    for family, kind, protocol, _, address in found:
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:
            reason = error.strerror or str(error)
            continue
        try:
            sock.setblocking(False)
            sock.connect(address)
        except OSError as error:
            sock.close()
            reason = error.strerror or str(error)
        else:
            return sock
    raise SinkWaits(f"cannot send to {server}: {reason}")


class DatagramSession:
    """See `sinks.contract.Session`. A ticket is the settlement, unless the kernel reports an error.

    `gone` is the message for a refused connection, `answer` the one for a confirmation; `timeout_s`
    is how long the kernel may have no room. Without a `pacer` datagrams leave as fast as it takes
    them.
    """

    def __init__(
        self, sock: socket.socket, where: str, report: Report, *, gone: str, answer: str,
        timeout_s: float = math.inf, datagrams: Datagrams = one_each,
        pacer: DatagramPacer | None = None,
    ) -> None:  # fmt: skip
        self._sock, self._where, self._report = sock, where, report
        self._gone, self._answer, self._timeout_s = gone, answer, timeout_s
        self._datagrams, self._pacer = datagrams, pacer

    async def send(self, messages: Sequence[bytes]) -> Settlement:
        """See `sinks.contract.Session`. If cancelled, some messages may be out."""
        refused = []
        sent = sent_bytes = 0
        await trio.lowlevel.checkpoint()
        for index, message in enumerate(messages):
            datagrams = self._datagrams(message)
            whole = bool(datagrams)
            for datagram in datagrams:
                if self._pacer is not None:
                    await self._pacer.wait(len(datagram))
                whole = whole and await self._send_one(datagram)
                sent, sent_bytes = sent + 1, sent_bytes + len(datagram)
                if sent % _TURN == 0:
                    await trio.lowlevel.checkpoint()
            if not whole:
                reason = f"{len(message)} bytes are too many for a datagram on this path"
                refused.append(Refusal(index, "EMSGSIZE", reason))
        self._report("send", f"{sent_bytes} bytes, datagrams: {sent}")
        return refused

    async def _send_one(self, datagram: bytes) -> bool:
        while True:
            try:
                self._sock.send(datagram)
            except BlockingIOError:
                await self._wait_for_room()
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    return False
                if error.errno != errno.ENOBUFS:
                    raise self._waits(error.errno) from error
                await trio.sleep(_QUEUE_PAUSE_S)
            else:
                return True

    async def _wait_for_room(self) -> None:
        try:
            with trio.fail_after(self._timeout_s):
                await trio.lowlevel.wait_writable(self._sock)
        except trio.TooSlowError as error:
            raise SinkWaits(
                f"{self._where}: the receiver has taken nothing for "
                f"{show_seconds(self._timeout_s)}; is it overloaded?"
            ) from error

    async def confirm(self, ticket: Settlement) -> Settlement:
        """See `sinks.contract.Session`; raises SinkWaits if an ICMP error has come since `send`."""
        # An ICMP error that came since the last datagram.
        number = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        # `send` has already reported a datagram that was too large.
        if number not in (0, errno.EMSGSIZE):
            raise self._waits(number)
        self._report("answer", self._answer)
        return ticket

    def _waits(self, number: int | None) -> SinkWaits:
        gone = number in (errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOTCONN)
        reason = self._gone if gone else os.strerror(number or errno.EIO)
        return SinkWaits(f"{self._where}: {reason}")


UDP: Final = ProtocolKind(
    UdpOptions, UdpSink, "syslog", "datagrams, unconfirmed", port=514,
    limits=_limits, max_message_bytes=_largest_message,
)  # fmt: skip
