"""The servers of a stream sink: one or several, tried in order, the first one preferred.

Every connection starts with the first server. While it is with a later one, the earlier ones are
tried once a minute; when one is back, the session ends as soon as nothing is in flight.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Final, NamedTuple, TypeVar

import trio
from pydantic import AfterValidator, Discriminator, Field, StringConstraints, Tag

from siemrelay.core.errors import DeliveryError, SinkHolds, SinkWaits
from siemrelay.core.options import show_seconds
from siemrelay.sinks.contract import Report

T = TypeVar("T")

# How often the earlier servers are tried. They were down, so minutes do not matter; a connection
# that is opened and closed costs them next to nothing.
FAIL_BACK_PROBE_S: Final = 60.0

# An address that answers answers within seconds: SYNs go out after 0, 1, 3 and 7 s. Nor does a TLS
# handshake take longer; a person learns early that something is in the way.
CONNECT_S: Final = 10.0

_BRACKETED: Final = re.compile(r"\[([^\[\]]+)\](?::(\d{1,5}))?")
_NAMED: Final = re.compile(r"([^:\[\]\s/@,;]+)(?::(\d{1,5}))?")
_MAX_PORT: Final = 65535


class Address(NamedTuple):
    """A server's name or IP address, and its port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host} port {self.port}"


def _split(server: str) -> tuple[str, int | None]:
    if server.count(":") > 1 and _is_ipv6(server):
        return server, None
    match = _BRACKETED.fullmatch(server) or _NAMED.fullmatch(server)
    port = int(match[2]) if match and match[2] else None
    if match is None or port == 0 or (port or 0) > _MAX_PORT:
        raise ValueError("write a name or address, maybe with a port: siem.example.com:6514")
    return match[1], port


def _is_ipv6(server: str) -> bool:
    try:
        return bool(ipaddress.IPv6Address(server))
    except ValueError:
        return False


def _server(server: str) -> str:
    _split(server)
    return server


Server = Annotated[str, StringConstraints(min_length=1), AfterValidator(_server)]
Servers = Annotated[
    Annotated[Server, Tag("one")] | Annotated[list[Server], Field(min_length=1), Tag("several")],
    # Discriminated first, so that a fault inside a list is located there.
    Discriminator(lambda value: "several" if isinstance(value, list) else "one"),
    Field(
        description="host name or address of the receiver, or a list of them, tried in order; "
        "`name:port` where one has a port of its own"
    ),
]
"""The option `server` of a stream sink."""


def ports_within(servers: Any) -> list[int | None]:
    """The port in each server as written in the file; None where there is none."""
    found = []
    for server in servers if isinstance(servers, list) else [servers]:
        try:
            found.append(_split(server)[1] if isinstance(server, str) else None)
        except ValueError:
            found.append(None)
    return found


def addresses(servers: str | Sequence[str], port: int) -> list[Address]:
    """The servers to connect to, the preferred one first."""
    parts = [_split(server) for server in ([servers] if isinstance(servers, str) else servers)]
    return [Address(host, own or port) for host, own in parts]


Connect = Callable[[Address], Awaitable[T]]
"""Opens a connection to one server, ready for messages. Raises SinkWaits or SinkHolds."""


async def first_of(
    servers: Sequence[Address], connect: Connect[T], report: Report
) -> tuple[T, int]:
    """Connect to the first server that can be reached; returns also how many were skipped.

    Raises the error of a single server; of several, SinkWaits if any of them may come back by
    itself, else SinkHolds.
    """
    faults: list[SinkWaits | SinkHolds] = []
    for index, address in enumerate(servers):
        try:
            return await connect(address), index
        except (SinkWaits, SinkHolds) as error:
            faults.append(error)
            if index + 1 < len(servers):
                report("failed", f"{address}: {error}; the next server is tried")
    if len(faults) == 1:
        raise faults[0]
    said = "; ".join(f"{where}: {fault}" for where, fault in zip(servers, faults, strict=True))
    if any(isinstance(fault, SinkWaits) for fault in faults):
        raise SinkWaits(said)
    raise SinkHolds(said, advice="")


async def earlier_is_back(
    earlier: Sequence[Address], connect: Connect[trio.abc.AsyncResource]
) -> Address:
    """Wait until one of these servers accepts connections again, and return it."""
    while True:
        await trio.sleep(FAIL_BACK_PROBE_S)
        for address in earlier:
            try:
                await (await connect(address)).aclose()
            except DeliveryError:
                continue
            return address


async def connect_tcp(address: Address, timeout_s: float, report: Report) -> trio.SocketStream:
    """Connect by TCP, with keepalive and a user timeout. Raises SinkWaits with what to check."""
    server, port = address
    within_s = min(timeout_s, CONNECT_S)
    try:
        with trio.fail_after(within_s):
            found = await trio.socket.getaddrinfo(server, port, type=socket.SOCK_STREAM)
            report("resolve", ", ".join(dict.fromkeys(str(entry[4][0]) for entry in found)))
            stream = await trio.open_tcp_stream(server, port)
    except trio.TooSlowError as error:
        raise SinkWaits(
            f"no answer from {address} within {show_seconds(within_s)}; is a firewall in the way?"
        ) from error
    except (socket.gaierror, UnicodeError) as error:
        said = getattr(error, "strerror", None) or "not a host name"
        raise SinkWaits(f"cannot resolve {server!r}: {said}; check `server`") from error
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
    said = dict.fromkeys(
        os.strerror(cause.errno) if isinstance(cause, OSError) and cause.errno else str(cause)
        for cause in causes
    )
    text = ", ".join(said) or error.strerror or str(error)
    return f"{text}; is the receiver running there?" if "refused" in text.casefold() else text
