"""TCP as a client: from a server's name to a connection, or to the reason why there is none."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import trio

from siemrelay.core.errors import SinkWaits
from siemrelay.core.options import show_seconds

# An address that answers answers within seconds: SYNs go out after 0, 1, 3 and 7 s. Nor does a TLS
# handshake take longer; a person learns early that something is in the way.
CONNECT_S: Final = 10.0


class Address(NamedTuple):
    """A server's name or IP address, and its port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host} port {self.port}"


async def resolve(
    address: Address, kind: socket.SocketKind, report: Callable[[str, str], None]
) -> list[tuple[Any, ...]]:
    """The entries of getaddrinfo(3), reported as the step `resolve`. Raises SinkWaits."""
    try:
        found = await trio.socket.getaddrinfo(*address, type=kind)
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a host name"
        raise SinkWaits(f"cannot resolve {address.host!r}: {reason}; check `server`") from error
    report("resolve", ", ".join(dict.fromkeys(str(entry[4][0]) for entry in found)))
    return list(found)


async def connect_tcp(
    address: Address, timeout_s: float, report: Callable[[str, str], None]
) -> trio.SocketStream:
    """Connect by TCP, with keepalive and a user timeout; takes no longer than CONNECT_S.

    `report` takes the steps `resolve` and `connect` with what was found. Raises SinkWaits with what
    to check. If cancelled, nothing is left open.
    """
    within_s = min(timeout_s, CONNECT_S)
    try:
        with trio.fail_after(within_s):
            await resolve(address, socket.SOCK_STREAM, report)
            stream = await trio.open_tcp_stream(*address)
    except trio.TooSlowError as error:
        raise SinkWaits(
            f"no answer from {address} within {show_seconds(within_s)}; is a firewall in the way?"
        ) from error
    except OSError as error:
        raise SinkWaits(f"cannot connect to {address}: {connect_reason(error)}") from error
    try:
        _prepare(stream, address, timeout_s)
        name = stream.socket.getpeername()
    except BaseException as error:
        await trio.aclose_forcefully(stream)
        if isinstance(error, OSError):  # it was reset already
            raise SinkWaits(f"cannot connect to {address}: {connect_reason(error)}") from error
        raise
    report("connect", f"{name[0]} port {name[1]}")
    return stream


def _prepare(stream: trio.SocketStream, address: Address, timeout_s: float) -> None:
    if stream.socket.getpeername() == stream.socket.getsockname():
        # A connection to a free port in this machine's ephemeral range may connect to itself. The
        # kernel would then acknowledge bytes that nobody reads.
        raise SinkWaits(f"cannot connect to {address}: nobody listens there")
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # A peer that acknowledges nothing for so long breaks the connection; by default, 15 minutes.
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout_s * 1000))


def connect_reason(error: OSError) -> str:
    """Why there is no connection: the system's messages, each once."""
    causes = error.__cause__.exceptions if isinstance(error.__cause__, BaseExceptionGroup) else ()
    # By errno: trio's own messages repeat the address.
    reasons = dict.fromkeys(
        os.strerror(cause.errno) if isinstance(cause, OSError) and cause.errno else str(cause)
        for cause in causes
    )
    text = ", ".join(reasons) or error.strerror or str(error)
    return f"{text}; is the receiver running there?" if "refused" in text.casefold() else text
