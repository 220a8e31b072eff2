"""Kinds of addresses: receivers have typed fields for IP addresses, which take no host names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec

dotted_quad: Final = re.compile(
    r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){3}", re.ASCII
).fullmatch
"""Matches an IPv4 address without leading zeros, which some receivers read as octal."""

_octets: Final = msgspec.json.Decoder(list[Annotated[int, msgspec.Meta(ge=0, le=255)]]).decode


def dotted_quads(addresses: Sequence[str]) -> bool:
    """Whether `dotted_quad` matches all of them, found for all in one go."""
    joined = ",".join(addresses)
    if not joined.isascii():
        return False
    written = joined.encode()
    if written.translate(None, b"0123456789") != b",".join([b"..."] * len(addresses)):
        return False
    # As numbers in JSON have no leading zeros, either.
    try:
        _octets(b"[" + written.replace(b".", b",") + b"]")
    except msgspec.DecodeError:
        return False
    return True


def ip_versions(addresses: Sequence[str]) -> list[Literal[0, 4, 6]]:
    """`ip_version` of each."""
    if dotted_quads(addresses):
        return [4] * len(addresses)
    return list(map(ip_version, addresses))


def ip_version(address: str) -> Literal[0, 4, 6]:
    """4 or 6, or 0 for what is no IP address: a host's name, or anything else."""
    if dotted_quad(address):
        return 4
    if ":" not in address:
        return 0
    import ipaddress  # slow to import, and the common address is nonempty by `dotted_quad`

    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return 0
    return 6


def is_ip(address: str) -> bool:
    """Whether typed fields take it: an IP address without a zone (`fe80::1%eth0`)."""
    return ip_version(address) != 0 and "%" not in address


def are_ip(addresses: Sequence[str]) -> list[bool]:
    """`is_ip` of each."""
    return [True] * len(addresses) if dotted_quads(addresses) else list(map(is_ip, addresses))
