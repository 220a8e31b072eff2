"""Listening sockets: opened, inherited from systemd, and kept from one listener to the next."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NamedTuple, Protocol, runtime_checkable

import trio

from siemrelay.core.errors import ListenRefused

# Connections that may wait to be accepted; the kernel takes net.core.somaxconn if that is less.
_BACKLOG: Final = 4096

# systemd hands sockets over from this descriptor on (sd_listen_fds(3)).
_FIRST_PASSED: Final = 3

_LOOPBACK: Final = frozenset({"127.0.0.1", "::1"})
# `0.0.0.0` is every address of IPv4; `::` alone is every address of both families.
_EVERY_IPV4: Final = "0.0.0.0"
_EVERY: Final = "::"


class BindAddress(NamedTuple):
    """The address of a socket: `path` of a Unix socket, else host and port (0: any free one).

    `nth` tells apart several addresses of one owner that take any free port.
    """

    datagrams: bool
    host: str
    port: int
    path: str = ""
    nth: int = 0

    def __str__(self) -> str:
        kind = "datagrams" if self.datagrams else "connections"
        return f"{self.path or f'port {self.port} of {self.host}'} ({kind})"

    def clashes(self, other: BindAddress) -> bool:
        """Whether the kernel would refuse the two side by side.

        Host names are compared as they are written; only the kernel knows what they lead to.
        """
        if self.path or other.path:
            return self.path == other.path
        if self.datagrams is not other.datagrams or self.port != other.port or not self.port:
            return False
        mine, its = _hosts(self.host), _hosts(other.host)
        return bool(mine & its) or any(
            _EVERY in some or (_EVERY_IPV4 in some and any("." in host for host in others))
            for some, others in ((mine, its), (its, mine))
        )

    def leads_here(self, target: BindAddress) -> bool:
        """Whether a client that connects to `target` on this machine reaches a listener here.

        Certain only: an address of this machine that the listener does not name is not known.
        """
        everywhere = self.host in (_EVERY_IPV4, _EVERY)
        return self.clashes(target) and (not everywhere or bool(_hosts(target.host) & _LOOPBACK))


def _hosts(host: str) -> frozenset[str]:
    if host.casefold() == "localhost":
        return _LOOPBACK
    try:
        return frozenset({str(ip_address(host))})
    except ValueError:
        return frozenset({host.casefold()})


@runtime_checkable
class Listening(Protocol):
    """Options of a part that listens."""

    @property
    def binds(self) -> list[BindAddress]:
        """The addresses, in the order in which `listen` names them."""


class ListeningSockets:
    """The listening sockets of one relay. Each stays open while its listener is restarted.

    What waits in a socket (connections, datagrams) then waits for the next listener, and nobody is
    refused (test_a_listener_keeps_its_socket_over_reloads).
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, BindAddress], list[socket.socket]] = {}
        self._opening = trio.Lock()

    async def take(
        self, owner: str, address: BindAddress, *, mode: int = 0o660
    ) -> list[trio.socket.SocketType]:
        """The sockets of an address, for `owner` to use and close; opened unless they are kept.

        See `open`.
        """
        # It may be given up again by a reload before this task runs.
        while (kept := self._kept.get(_key(owner, address))) is None:
            await self.open(owner, address, mode=mode)
        return [trio.socket.from_stdlib_socket(sock.dup()) for sock in kept]

    async def open(self, owner: str, address: BindAddress, *, mode: int = 0o660) -> bool:
        """Open the sockets of an address unless they are kept; returns whether it did.

        systemd's if it passed any that match. A name may have several. Stream sockets listen.
        `mode` are the permissions of a new Unix socket; one on which nobody listens any more is
        replaced. Raises ListenRefused.
        """
        key = _key(owner, address)
        async with self._opening:
            if key in self._kept:
                return False
            self._kept[key] = await _opened(address, mode)
        return True

    def close(self, owner: str, address: BindAddress) -> None:
        """Keep an address no longer; a listener that uses it closes it for good."""
        for sock in self._kept.pop(_key(owner, address), ()):
            sock.close()

    def keep_only(self, wanted: Iterable[tuple[str, BindAddress]]) -> None:
        """Keep only these, given by owner and address, and no others any longer."""
        keys = {_key(owner, address) for owner, address in wanted}
        for key in self._kept.keys() - keys:
            for sock in self._kept.pop(key):
                sock.close()


_ADVICE: Final = {
    errno.EADDRINUSE: "another program has it (ss -ltnup shows which): stop it, or set `listen` to "
    "another address",
    errno.EACCES: "ports below 1024 are for root and, by `siemrelay install --low-ports`, the "
    "service; or set `listen` to another port",
}


def _key(owner: str, address: BindAddress) -> tuple[str, BindAddress]:
    # A fixed address moves from one owner to another; "any free port" is another one for each.
    return ("" if address.path or address.port else owner), address


async def _opened(address: BindAddress, mode: int) -> list[socket.socket]:
    if passed := _passed(address):
        return passed
    try:
        if address.path:
            return [await trio.to_thread.run_sync(_local, address, mode)]
        return await _network(address)
    except OSError as error:
        raise ListenRefused(
            f"cannot listen on {address}: {error.strerror or error}; "
            + _ADVICE.get(error.errno or 0, "set `listen` to a free address of this machine")
        ) from error


async def _network(address: BindAddress) -> list[socket.socket]:
    kind = socket.SOCK_DGRAM if address.datagrams else socket.SOCK_STREAM
    found = await trio.socket.getaddrinfo(
        address.host, address.port, type=kind, flags=socket.AI_PASSIVE
    )
    made: list[socket.socket] = []
    try:
        for family, _, _, _, where in found:
            sock = socket.socket(family, kind)
            made.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(not address.datagrams))
            if family == socket.AF_INET6:
                # A name brings its IPv4 addresses itself.
                only = int(address.host != _EVERY)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
            sock.bind(where)
            if not address.datagrams:
                sock.listen(_BACKLOG)
    except BaseException:
        for sock in made:
            sock.close()
        raise
    return made


def _local(address: BindAddress, mode: int) -> socket.socket:
    kind = socket.SOCK_DGRAM if address.datagrams else socket.SOCK_STREAM
    path, sock = Path(address.path), socket.socket(socket.AF_UNIX, kind)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode) and _is_deserted(path, kind):
            path.unlink()
        sock.bind(address.path)
        path.chmod(mode)  # before anybody can connect
        if not address.datagrams:
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


def _passed(address: BindAddress) -> list[socket.socket]:
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


def _is_at(sock: socket.socket, address: BindAddress) -> bool:
    if (sock.type == socket.SOCK_DGRAM) is not address.datagrams:
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
