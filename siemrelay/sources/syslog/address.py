"""The addresses a syslog source listens at: parsed, and their sockets opened or inherited."""

from __future__ import annotations

import os
import socket
import stat
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import trio

DEFAULT_PORTS: Final = {
    "tcp": 514, "tls": 6514, "udp": 514, "relp": 2514, "relp+tls": 2514,
}  # fmt: skip
"""Scheme → the port when none is written."""

_LOCAL: Final = {"unix": socket.SOCK_STREAM, "unixgram": socket.SOCK_DGRAM}

# Connections that may wait to be accepted; the kernel takes net.core.somaxconn if that is less.
_BACKLOG: Final = 4096

# systemd hands sockets over from this descriptor on (sd_listen_fds(3)).
_FIRST_PASSED: Final = 3

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
    def is_stream(self) -> bool:
        """Whether peers connect."""
        return self.scheme not in ("udp", "unixgram")


def parse_address(listen: str) -> SyslogAddress:
    """The parts of `tls://0.0.0.0`. Raises ValueError with an example."""
    try:
        parts = urlsplit(listen)
        port, host = parts.port, parts.hostname
    except ValueError as error:
        raise ValueError(f"{error}; {_EXAMPLE}") from None
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
    if not host or parts.path not in ("", "/"):
        raise ValueError(_EXAMPLE)
    return SyslogAddress(
        parts.scheme, host, DEFAULT_PORTS[parts.scheme] if port is None else port, ""
    )


async def open_sockets(address: SyslogAddress, *, mode: int) -> list[trio.socket.SocketType]:
    """The sockets of an address: systemd's if it passed any that match, else new ones.

    A name may have several. Stream sockets listen. `mode` are the permissions of a new Unix
    socket; one that nobody listens on any more is replaced. Raises OSError with what to do.
    """
    if passed := _passed(address):
        return [trio.socket.from_stdlib_socket(sock) for sock in passed]
    try:
        if address.path:
            made = [await trio.to_thread.run_sync(_local, address, mode)]
        else:
            made = await _network(address)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot listen on {address}: {error.strerror or error}; set `listen` to a free "
            "address of this machine that the service may use",
        ) from error
    return [trio.socket.from_stdlib_socket(sock) for sock in made]


async def _network(address: SyslogAddress) -> list[socket.socket]:
    kind = socket.SOCK_STREAM if address.is_stream else socket.SOCK_DGRAM
    found = await trio.socket.getaddrinfo(
        address.host, address.port, type=kind, flags=socket.AI_PASSIVE
    )
    made: list[socket.socket] = []
    try:
        for family, _, _, _, where in found:
            sock = socket.socket(family, kind)
            made.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1 if address.is_stream else 0)
            if family == socket.AF_INET6:
                # `::` alone means both families; a name brings its IPv4 addresses itself.
                both = address.host == "::"
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both else 1)
            sock.bind(where)
            if address.is_stream:
                sock.listen(_BACKLOG)
    except BaseException:
        for sock in made:
            sock.close()
        raise
    return made


def _local(address: SyslogAddress, mode: int) -> socket.socket:
    kind, path = _LOCAL[address.scheme], Path(address.path)
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode) and _is_deserted(path, kind):
            path.unlink()
        sock.bind(address.path)
        path.chmod(mode)  # before anybody can connect
        if address.is_stream:
            sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _is_deserted(path: Path, kind: int) -> bool:
    with socket.socket(socket.AF_UNIX, kind) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def _passed(address: SyslogAddress) -> list[socket.socket]:
    """Copies of the matching sockets that systemd opened, so that a restart finds them again."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = os.environ.get("LISTEN_FDS", "")
    if not count.isdecimal():
        return []
    matching = []
    for number in range(_FIRST_PASSED, _FIRST_PASSED + int(count)):
        try:
            sock = socket.socket(fileno=os.dup(number))
        except OSError:
            continue  # no socket, but a pipe or a file
        if _is_at(sock, address):
            matching.append(sock)
        else:
            sock.close()
    return matching


def _is_at(sock: socket.socket, address: SyslogAddress) -> bool:
    if (sock.type == socket.SOCK_STREAM) is not address.is_stream:
        return False
    where = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return bool(address.path) and where == address.path
    if address.path or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    if where[1] != address.port:
        return False
    try:
        wanted = ip_address(address.host)
    except ValueError:
        return ip_address(where[0]).is_loopback and address.host == "localhost"
    have = ip_address(where[0])
    # systemd's `ListenStream=514` is `::` for both families.
    return have == wanted or (have.is_unspecified and wanted.is_unspecified)
