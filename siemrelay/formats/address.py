"""What kind of address an event's actor has: receivers type their fields for IP addresses."""

from __future__ import annotations

import re
from typing import Final, Literal

dotted_quad: Final = re.compile(
    r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){3}", re.ASCII
).fullmatch
"""Matches an IPv4 address without leading zeros, which some receivers read as octal."""


def ip_version(address: str) -> Literal[0, 4, 6]:
    """4 or 6, or 0 for what is no IP address: a host's name, or anything else."""
    if dotted_quad(address):
        return 4
    if ":" not in address:
        return 0
    import ipaddress  # slow to import, and the common address is told by `dotted_quad`

    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return 0
    return 6


def is_ip(address: str) -> bool:
    """Whether typed fields take it: an IP address without a zone (`fe80::1%eth0`)."""
    return ip_version(address) != 0 and "%" not in address
