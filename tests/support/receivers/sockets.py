"""Receivers that the daemon sends to in tests: real sockets on loopback, each with its own threads.

They can go down and come up again on the same port: while down the port stays bound but not
listening, so the kernel refuses connections and nobody else takes it. Once they are closed no other
test gets it soon, which a relay that still runs would send its records to.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from fcntl import ioctl
from types import TracebackType
from typing import Any, Literal, Self

from tests.support.daemon import PATIENCE_S, until
from tests.support.servers import free_port

FIONREAD = 0x541B  # linux/include/uapi/asm-generic/ioctls.h

# A close with this sends a reset instead of a FIN.
LINGER_RESET = struct.pack("ii", 1, 0)

# How long a full receive buffer must stay unchanged before it counts as all that the sender's
# kernel could place; the longest delayed acknowledgement of Linux is 0.2 s.
QUIET_S = 0.3


class Arrived:
    """What came in, in order; safe to read while more comes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._messages: list[bytes] = []

    def add(self, messages: list[bytes]) -> None:
        with self._lock:
            self._messages += messages

    @property
    def messages(self) -> list[bytes]:
        with self._lock:
            return list(self._messages)

    def __len__(self) -> int:
        with self._lock:
            return len(self._messages)

    @property
    def ids(self) -> list[str]:
        """The ids of JSON messages."""
        return [json.loads(message)["id"] for message in self.messages]


class Receiver:
    """What all have in common: a name in `with`, threads that are joined, what arrived."""

    def __init__(self) -> None:
        self.arrived = Arrived()
        self.port = 0
        self._threads: list[threading.Thread] = []

    def until(self, count: int, within_s: float = PATIENCE_S) -> None:
        """Wait until so many messages have arrived."""
        until(lambda: len(self.arrived) >= count, within_s, f"{count} messages")

    def _spawn(self, work: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _join(self) -> None:
        for thread in self._threads:
            thread.join(10)
        self._threads.clear()

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()


class TcpReceiver(Receiver):
    """Takes connections and cuts them into messages.

    `reads=False`: accepts and never reads. `resets`: so many connections are reset in mid-stream,
    each when its sender has filled the kernel's buffer; what the kernel held then counts as
    arrived, because the kernel acknowledged it (plain TCP promises no more).
    """

    def __init__(
        self, framing: Literal["newline", "octet-counting"] = "newline", *, reads: bool = True,
        resets: int = 0, up: bool = True, tls: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.framing, self.reads, self.resets = framing, reads, resets
        self._tls = tls
        self.connections_made = 0
        self._connections: list[socket.socket] = []
        self._lock = threading.Lock()
        self.port = free_port()
        self._listener = self._bound()
        if up:
            self.up()

    def _bound(self) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if not self.reads or self.resets:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        listener.bind(("127.0.0.1", self.port))
        return listener

    def up(self) -> None:
        """Listen."""
        self._listener.listen(8)
        self._spawn(self._accept, self._listener)

    def down(self) -> None:
        """Close everything, unread bytes included, and refuse connections until `up`."""
        self.close()
        self._listener = self._bound()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
        with self._lock:
            connections, self._connections = self._connections, []
        for connection in connections:
            with suppress(OSError):
                # Not SSLSocket's: it ends the decryption of what the kernel has acknowledged.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        self._join()
        for connection in connections:
            connection.close()
        self._listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._connections.append(connection)
                self.connections_made += 1
            if self.resets:
                self.resets -= 1
                self._spawn(self._reset, connection)
            elif self.reads:
                self._spawn(self._read, connection)

    def _read(self, connection: socket.socket) -> None:
        rest = b""
        with suppress(OSError):
            if self._tls is not None:
                connection = self._within_tls(connection, self._tls)
            while data := connection.recv(1 << 18):
                messages, rest = self._cut(rest + data)
                self.arrived.add(messages)
        with self._lock:
            if connection in self._connections:
                self._connections.remove(connection)
        connection.close()

    def _within_tls(self, connection: socket.socket, tls: ssl.SSLContext) -> socket.socket:
        with self._lock:
            if connection not in self._connections:
                return connection
            secured = tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            self._connections[self._connections.index(connection)] = secured
        try:
            secured.do_handshake()
        except OSError:
            secured.close()
            raise
        return secured

    def _reset(self, connection: socket.socket) -> None:
        held, since = -1, time.monotonic()
        while held < 1 or time.monotonic() - since < QUIET_S:
            (now,) = struct.unpack("i", ioctl(connection.fileno(), FIONREAD, b"\0\0\0\0"))
            if now != held:
                held, since = now, time.monotonic()
            threading.Event().wait(0.01)
        messages, _ = self._cut(connection.recv(held, socket.MSG_PEEK))
        self.arrived.add(messages)
        with self._lock:
            if connection in self._connections:
                self._connections.remove(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        connection.close()

    def _cut(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Whole messages, and what is left."""
        if self.framing == "newline":
            *messages, rest = data.split(b"\n")
            return messages, rest
        messages = []
        while b" " in data[:11]:
            length, _, rest = data.partition(b" ")
            if len(rest) < int(length):
                break
            messages.append(rest[: int(length)])
            data = rest[int(length) :]
        return messages, data


class UdpReceiver(Receiver):
    """One message a datagram."""

    def __init__(self) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        self.port = free_port(socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", self.port))
        self._spawn(self._read)

    def _read(self) -> None:
        # An empty datagram, which the relay never sends, ends it.
        while data := self._socket.recv(1 << 16):
            self.arrived.add([data])

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.sendto(b"", ("127.0.0.1", self.port))
        self._join()
        self._socket.close()


class NotifySocket(Receiver):
    """systemd's side of sd_notify(3): each datagram with the time it came."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.times: list[float] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        self._spawn(self._read)

    def _read(self) -> None:
        while data := self._socket.recv(1 << 16):
            self.times.append(time.monotonic())
            self.arrived.add([data])

    @property
    def lines(self) -> list[str]:
        return [line for data in self.arrived.messages for line in data.decode().splitlines()]

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
            own.sendto(b"", self.path)
        self._join()
        self._socket.close()
