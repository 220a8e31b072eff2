"""The addresses that a configuration listens on, and whether this process can take them."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from siemrelay.config.load import Loaded
from siemrelay.config.yaml_document import KeyPath
from siemrelay.net.listening_sockets import BindAddress, Listening


def addresses(loaded: Loaded) -> list[tuple[KeyPath, BindAddress]]:
    """The ports that the relay listens on, with where they are named."""
    found: list[tuple[KeyPath, BindAddress]] = [
        (("sources", name, "listen"), bind)
        for name, source in loaded.config.sources.items()
        for bind in (source.binds if isinstance(source, Listening) else ())
        if not bind.path
    ]
    if (endpoint := loaded.config.endpoint.address) is not None:
        found.append((("endpoint", "listen"), BindAddress(False, *endpoint)))
    return found


def lowest_free_port() -> int:
    """The lowest port that every user may take."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        return 1024


class AddressRefused(NamedTuple):
    """Why an address cannot be taken: the system's error number, 0 without one, and a text."""

    number: int
    text: str


def taken(bind: BindAddress) -> AddressRefused | None:
    """Why this process cannot listen there; None if it can."""
    kind = socket.SOCK_DGRAM if bind.datagrams else socket.SOCK_STREAM
    try:
        found = socket.getaddrinfo(bind.host, bind.port, type=kind, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in found:
            with closing(socket.socket(family, kind)) as sock:
                if not bind.datagrams:  # connections that have just ended are no obstacle
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(address)
    except socket.gaierror as error:
        return AddressRefused(0, f"{bind.host} cannot be resolved ({error.strerror})")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return AddressRefused(error.errno, "another program has it (ss -ltnup shows which)")
        if error.errno == errno.EADDRNOTAVAIL:
            text = "this machine has no such address (ip addr); 0.0.0.0 stands for all of them"
            return AddressRefused(error.errno, text)
        return AddressRefused(error.errno or 0, os.strerror(error.errno or 0))
    return None
