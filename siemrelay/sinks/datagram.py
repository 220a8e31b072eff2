"""UDP out: one message a datagram (RFC 5426). Confirmed means that the kernel took it, no more."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio
from pydantic import Field

from siemrelay.errors import SinkWaits
from siemrelay.options import Options, Port
from siemrelay.sinks.contract import Refusal, Report, Settlement, no_report

# The largest payload of one IPv4 datagram: 65535 less the IP (20) and UDP (8) headers.
MAX_DATAGRAM_BYTES: Final = 65507

# A sender that never waits starves the other parts: after so many datagrams they get a turn.
_BURST: Final = 64

# A full interface queue drains in well under this.
_QUEUE_PAUSE_S: Final = 0.005


class UdpOptions(Options):
    """What a UDP sink may set."""

    server: str = Field(min_length=1, description="host name or address of the receiver")
    port: Port = Field(514, description="its UDP port")


class UdpSink:
    """Messages as UDP datagrams to one address."""

    def __init__(self, options: UdpOptions) -> None:
        self._options = options

    @asynccontextmanager
    async def session(self, report: Report = no_report) -> AsyncIterator[UdpSession]:
        """See `sinks.contract.Sink`. Connecting sends nothing; it lets the kernel tell of refusals."""
        server, port = self._options.server, self._options.port
        try:
            found = await trio.socket.getaddrinfo(server, port, type=socket.SOCK_DGRAM)
        except socket.gaierror as error:
            raise SinkWaits(
                f"cannot resolve {server!r}: {error.strerror}; check `server`"
            ) from error
        family, kind, protocol, _, address = found[0]
        report("resolve", str(address[0]))
        with trio.socket.socket(family, kind, protocol) as sock:
            try:
                await sock.connect(address)
            except OSError as error:
                raise SinkWaits(f"no way to {server}: {error.strerror}") from error
            report("connect", f"{address[0]} port {address[1]} (UDP: nothing is sent to connect)")
            yield UdpSession(sock, f"{server} port {port}", report)


class UdpSession:
    """See `sinks.contract.Session`; what `send` took is settled."""

    def __init__(self, sock: trio.socket.SocketType, where: str, report: Report) -> None:
        self._sock, self._where, self._report = sock, where, report

    async def send(self, messages: Sequence[bytes]) -> Settlement:
        refused = []
        for index, message in enumerate(messages):
            if index % _BURST == 0:
                await trio.lowlevel.checkpoint()
            if not await self._send_one(message):
                reason = f"{len(message)} bytes are too many for a datagram on this path"
                refused.append(Refusal(index, "EMSGSIZE", reason))
        self._report("send", f"{sum(map(len, messages))} bytes, {len(messages)} datagram")
        return refused

    async def _send_one(self, message: bytes) -> bool:
        while True:
            try:
                await self._sock.send(message)
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    return False
                if error.errno != errno.ENOBUFS:
                    raise SinkWaits(f"{self._where}: {_reason(error)}") from error
                await trio.sleep(_QUEUE_PAUSE_S)
            else:
                return True

    async def confirm(self, ticket: Settlement) -> Settlement:
        self._report("answer", "none: UDP has no answer; look for the event at the receiver")
        return ticket


def _reason(error: OSError) -> str:
    if error.errno == errno.ECONNREFUSED:
        return "nobody listens there (ICMP port unreachable); is the receiver running?"
    return error.strerror or str(error)
