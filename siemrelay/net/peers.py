"""Addresses of peers, as the kernel writes them and as limits and options count by them."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

# An IPv6 site has at least this prefix, and all of its 2^64 addresses are one sender's to use.
_IPV6_PREFIX: Final = 64


def group_of(peer: str) -> str:
    """The unit of limits per peer: an IPv6 address counts as its network of 64 bits.

    IPv4 addresses and users of Unix sockets count as they are.
    """
    if ":" not in peer:
        return peer
    address = plain_address(peer)
    return str(IPv6Network((address, _IPV6_PREFIX), strict=False)) if ":" in address else address


def is_loopback(host: str) -> bool:
    """Whether a host, an address or a name, can be reached from this machine only."""
    if host.casefold() == "localhost":
        return True
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


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
