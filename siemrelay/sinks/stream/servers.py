"""The option `server` of a stream sink: one server or a list, each with or without a port."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Discriminator, Field, StringConstraints, Tag

from siemrelay.net.tcp_client import Address

_BRACKETED: Final = re.compile(r"\[([^\[\]]+)\](?::(\d{1,5}))?")
_NAMED: Final = re.compile(r"([\w.%-]+)(?::(\d{1,5}))?")
_DOTTED: Final = re.compile(r"\d+\.\d+\.\d+\.\d+")
_MAX_PORT: Final = 65535


def _split(server: str) -> tuple[str, int | None]:
    if server.count(":") > 1 and _is_ipv6(server):
        return server, None
    if "$" in server:
        raise ValueError("an environment variable is written ${NAME}, with braces")
    if "://" in server:
        raise ValueError(
            "write the name or address alone, like siem.example.com:6514; `protocol` says how it "
            "is reached"
        )
    match = _BRACKETED.fullmatch(server) or _NAMED.fullmatch(server)
    port = int(match[2]) if match and match[2] else None
    if match is None or port == 0 or (port or 0) > _MAX_PORT:
        raise ValueError("write a name or address, maybe with a port: siem.example.com:6514")
    if _DOTTED.fullmatch(match[1]) and not _is_ipv4(match[1]):
        raise ValueError(f"{match[1]} is not an address: its numbers are from 0 to 255")
    return match[1], port


def _is_ipv4(server: str) -> bool:
    try:
        return bool(ipaddress.IPv4Address(server))
    except ValueError:
        return False


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
