"""The Unix socket sinks: to a receiver on this machine, as a stream or as datagrams.

On a stream a batch is confirmed when the receiver has read it. A datagram is confirmed when the
kernel has put it into the receiver's queue: it is lost if the receiver ends before it reads it.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Final, Literal

import trio
from pydantic import AfterValidator, Field

from siemrelay.core.errors import SinkHolds, SinkWaits
from siemrelay.core.options import Options, Timeout, absolute
from siemrelay.sinks.contract import ProtocolKind, Report, no_report
from siemrelay.sinks.stream.connection import Connection, CountedStream
from siemrelay.sinks.stream.failover import watched
from siemrelay.sinks.stream.session import STREAM_LIMITS, StreamSession
from siemrelay.sinks.stream.udp import DatagramSession
from siemrelay.wire.stream_framing import FRAMERS

# A datagram may be as large as the send buffer, which the kernel limits to net.core.wmem_max.
_SEND_BUFFER_BYTES: Final = 8 << 20

_READ: Final = "the receiver has read every byte (the kernel says so)"
_QUEUED: Final = "none: the kernel put it into the receiver's queue; look for the event there"


class UnixOptions(Options):
    """Options of every sink to a Unix socket."""

    path: Annotated[Path, AfterValidator(absolute)] = Field(description="the receiver's socket")
    timeout: Timeout = Field(30.0, description="how long the receiver may take nothing; 5m at most")


class UnixStreamOptions(UnixOptions):
    """Options of `protocol: unix`."""

    framing: Literal["newline", "octet-counting", "nul"] = Field(
        "newline", description="how messages are separated (RFC 6587)"
    )


class UnixSink:
    """Messages over one Unix stream connection."""

    def __init__(self, options: UnixStreamOptions) -> None:
        self._options = options

    @asynccontextmanager
    async def session(self, report: Report = no_report) -> AsyncIterator[StreamSession]:
        """See `sinks.contract.Sink`."""
        path, timeout_s = self._options.path, self._options.timeout
        sock = await _connected(path, socket.SOCK_STREAM, timeout_s)
        report("connect", str(path))
        connection = Connection(CountedStream(trio.SocketStream(sock)), timeout_s, None)
        frame = FRAMERS[self._options.framing]
        session = StreamSession(connection, frame, report, answer=_READ)
        async with watched(session):
            yield session


class UnixgramSink:
    """Messages as datagrams to one Unix socket, as `/dev/log` takes them."""

    def __init__(self, options: UnixOptions) -> None:
        self._options = options

    @asynccontextmanager
    async def session(self, report: Report = no_report) -> AsyncIterator[DatagramSession]:
        """See `sinks.contract.Sink`."""
        path, timeout_s = self._options.path, self._options.timeout
        with await _connected(path, socket.SOCK_DGRAM, timeout_s) as connected:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            report("connect", str(path))
            with socket.socket(fileno=connected.detach()) as sock:
                yield DatagramSession(
                    sock, str(path), report, gone="the receiver is gone; is it running?",
                    answer=_QUEUED, timeout_s=timeout_s,
                )  # fmt: skip


async def _connected(
    path: Path, kind: socket.SocketKind, timeout_s: float
) -> trio.socket.SocketType:
    """A socket connected to that path. Raises SinkWaits or SinkHolds with what to check."""
    sock = trio.socket.socket(socket.AF_UNIX, kind)
    try:
        with trio.fail_after(timeout_s):
            await sock.connect(str(path))
    except BaseException as error:
        sock.close()
        if isinstance(error, trio.TooSlowError):
            raise SinkWaits(
                f"{path}: the receiver takes no connection; is it overloaded?"
            ) from error
        if isinstance(error, OSError):
            raise _fault(path, error) from error
        raise
    return sock


def _fault(path: Path, error: OSError) -> SinkWaits | SinkHolds:
    reason = error.strerror or str(error)
    match error.errno:
        case errno.EPROTOTYPE:
            return SinkHolds(
                f"{path} is a socket of the other kind",
                advice="choose `protocol: unix` for a stream and `unixgram` for datagrams",
            )
        case errno.EACCES | errno.EPERM:
            return SinkHolds(
                f"{path}: {reason}", advice="let the relay's user write to the receiver's socket"
            )
        case errno.ENOENT:
            return SinkWaits(f"there is no socket {path}; is the receiver running?")
        case errno.ECONNREFUSED:
            return SinkWaits(f"nobody listens at {path}; is the receiver running?")
    if error.errno is None:  # "AF_UNIX path too long", by Python itself
        return SinkHolds(f"{path}: {reason}", advice="choose a shorter path for the socket")
    return SinkWaits(f"{path}: {reason}")


UNIX: Final = ProtocolKind(
    UnixStreamOptions, UnixSink, "syslog", "a Unix stream socket, confirmed when it was read",
    limits=lambda options: STREAM_LIMITS,
)  # fmt: skip

UNIXGRAM: Final = ProtocolKind(
    UnixOptions, UnixgramSink, "syslog", "datagrams to a Unix socket, unconfirmed"
)
