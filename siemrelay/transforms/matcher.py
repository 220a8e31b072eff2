"""What an entry of a condition stands for: a value, a pattern, a network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import translate
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from operator import or_
from typing import Final

from siemrelay.core.filters import quoted
from siemrelay.transforms.event_paths import Scalar, as_text

WILDCARD: Final = re.compile(r"[*?\[]")
"""A text that matches this is a pattern."""

NETWORK: Final = re.compile(r"(?:\d+\.\d+\.\d+\.\d+|[\da-fA-F]*:[\da-fA-F:.]*)(?:/\d+)?")
"""A text that matches this may be meant as an address or a network."""

_WITH_PORT: Final = re.compile(r"\[(?P<v6>[\da-fA-F:.]+)\](?::\d+)?|(?P<v4>[\d.]+):\d+")


class Matcher:
    """Values, patterns and networks, compared with texts; an empty text is none of them."""

    def __init__(self, entries: Sequence[Scalar]) -> None:
        self._entries = entries
        self._exact: set[str] = set()
        self._networks: list[IPv4Network | IPv6Network] = []
        patterns: list[str] = []
        for entry in entries:
            text = as_text(entry)
            network = network_of(entry) if isinstance(entry, str) else None
            if isinstance(entry, bool):  # YAML's `yes`
                self._exact |= {text, *(("yes", "on") if entry else ("no", "off"))}
            elif network is not None:
                self._exact.add(text)
                self._networks.append(network)
                if isinstance(network, IPv4Network):
                    patterns.append(_ipv4_pattern(network))
            elif isinstance(entry, str) and WILDCARD.search(entry):
                # `fnmatch` translates `*` without backtracking.
                patterns.append(translate(entry))
            else:
                self._exact.add(text)
        self._match = re.compile(rf"(?!\Z)(?:{'|'.join(patterns)})").match if patterns else None

    def column(self, texts: Sequence[str]) -> list[bool]:
        """`matches` of each."""
        if self._match is None:
            found = [text in self._exact for text in texts]
        else:
            found = [match is not None for match in map(self._match, texts)]
            if self._exact:
                found = list(map(or_, found, [text in self._exact for text in texts]))
        if self._networks and ":" in "".join(texts):
            # IPv6, a port, an IPv4 address written as IPv6: by the slow way, and only these.
            for index, text in enumerate(texts):
                if ":" in text and not found[index]:
                    found[index] = self._in_network(text)
        return found

    def matches(self, text: str) -> bool:
        """Whether the text is one of them."""
        return self.column([text])[0]

    def _in_network(self, text: str) -> bool:
        found = _WITH_PORT.fullmatch(text)
        try:
            address = ip_address((found["v6"] or found["v4"]) if found else text)
        except ValueError:
            return False
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return any(address in net or (mapped and mapped in net) for net in self._networks)

    def __str__(self) -> str:
        return " or ".join(quoted(as_text(entry)) for entry in self._entries)


def network_of(entry: str) -> IPv4Network | IPv6Network | None:
    """The network or address that an entry names; None for any other text."""
    if not NETWORK.fullmatch(entry):
        return None
    try:
        return ip_network(entry, strict=False)
    except ValueError:
        return None


_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"


def _ipv4_pattern(network: IPv4Network) -> str:
    """A regular expression for the network's addresses in dotted decimal."""
    octets = []
    for low, high in zip(network.network_address.packed, network.broadcast_address.packed,
                         strict=True):  # fmt: skip
        some = map(str, range(low, high + 1))
        octets.append(_OCTET if high - low == _ANY_OCTET else f"(?:{'|'.join(some)})")
    return r"\.".join(octets) + r"\Z"


_ANY_OCTET: Final = 255
