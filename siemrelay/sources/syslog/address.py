"""The addresses that a syslog source listens at, as they are written."""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from siemrelay.net.listener_options import split_address, without_scheme
from siemrelay.net.listening_sockets import BindAddress

DEFAULT_PORTS: Final = {
    "tcp": 514, "tls": 6514, "udp": 514, "relp": 2514, "relp+tls": 2514,
}  # fmt: skip
"""Scheme → the port when none is written."""

_LOCAL: Final = ("unix", "unixgram")

# sun_path of unix(7), with its final NUL.
_PATH_BYTES: Final = 107

_EXAMPLE: Final = "write SCHEME://HOST:PORT, like tcp://0.0.0.0:514, or unix:///PATH"


class SyslogAddress(NamedTuple):
    """The parts of a `listen` URL: `path` for Unix sockets, `host` and `port` for the others."""

    scheme: str
    host: str
    port: int
    path: str

    def __str__(self) -> str:
        if self.path:
            return f"{self.scheme}://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def bind(self) -> BindAddress:
        """The address of its sockets."""
        return BindAddress(self.scheme in ("udp", "unixgram"), self.host, self.port, self.path)


def parse_address(listen: str) -> SyslogAddress:
    """The parts of `tls://0.0.0.0`. Raises ValueError with an example."""
    if place := without_scheme(listen):
        raise ValueError(f"which protocol? write udp://{place} or tcp://{place}")
    parts = split_address(listen, _EXAMPLE)
    port, host = parts.port, parts.hostname
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError(f"only scheme, address and port belong here; {_EXAMPLE}")
    if parts.scheme in _LOCAL:
        if parts.netloc or not parts.path.startswith("/") or parts.path.endswith("/"):
            raise ValueError(f"write {parts.scheme}:///PATH with three slashes")
        if len(os.fsencode(parts.path)) > _PATH_BYTES:
            raise ValueError(f"the path of a socket has at most {_PATH_BYTES} bytes")
        return SyslogAddress(parts.scheme, "", 0, parts.path)
    if parts.scheme not in DEFAULT_PORTS:
        schemes = ", ".join([*DEFAULT_PORTS, *_LOCAL])
        raise ValueError(f"unknown scheme {parts.scheme!r} (one of {schemes}); {_EXAMPLE}")
    if host and host.isdigit() and port is None:
        raise ValueError(f"write a host before the port: {parts.scheme}://0.0.0.0:{host}")
    if not host or parts.path not in ("", "/"):
        raise ValueError(_EXAMPLE)
    return SyslogAddress(
        parts.scheme, host, DEFAULT_PORTS[parts.scheme] if port is None else port, ""
    )
