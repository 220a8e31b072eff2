"""Senders of HTTP for tests: a raw socket that shows what is really answered."""

from __future__ import annotations

import json
import socket
import ssl
from typing import Any

from tests.conftest import MakeDaemon
from tests.support import listening
from tests.support.daemon import Daemon
from tests.support.listening import relay_of

TOKEN = "Bearer token-of-the-hook"


def relay(make: MakeDaemon, name: str = "out", **source: Any) -> Daemon:
    """A relay with one HTTP source, whose records go to a file as they are."""
    settings = {"type": "http", "listen": "http://127.0.0.1:0/events", **source}
    return relay_of(make, {"hooks": settings}, name)


def port_of(daemon: Daemon, source: str = "hooks") -> int:
    """Where it listens, once it does."""
    return listening.port_of(daemon, source)


class Sender:
    """One connection. `post` gives the status, the fields in lower case and the body."""

    def __init__(
        self, port: int, host: str = "127.0.0.1", *, source: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        self.socket = socket.create_connection(
            (host, port), timeout=20, source_address=(source, 0) if source else None
        )
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.rest = b""

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def post(
        self, body: bytes, path: str = "/events", method: str = "POST", **fields: str
    ) -> tuple[int, dict[str, str], bytes]:
        """One request and its answer."""
        self.send(request(body, path, method, **fields))
        return self.answer(method)

    def send(self, data: bytes) -> None:
        """Bytes as they are."""
        self.socket.sendall(data)

    def answer(self, method: str = "POST") -> tuple[int, dict[str, str], bytes]:
        """The next answer."""
        while b"\r\n\r\n" not in self.rest:
            self._receive()
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        pairs = [line.split(": ", 1) for line in lines]
        fields = {name.lower(): value for name, value in pairs}
        size = 0 if method == "HEAD" else int(fields.get("content-length", "0"))
        while len(self.rest) < size:
            self._receive()
        body, self.rest = self.rest[:size], self.rest[size:]
        return int(status.split()[1]), fields, body

    def at_end(self) -> bool:
        """Wait for the other side to close; whether it said nothing before."""
        return not self.rest and self.socket.recv(1) == b""

    def _receive(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("closed without an answer")
        self.rest += data


def request(body: bytes, path: str = "/events", method: str = "POST", **fields: str) -> bytes:
    """The bytes of a request; `_` in a field's name stands for `-`."""
    fields = {"Host": "relay", "Content_Length": str(len(body)), **fields}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body


def said(body: bytes) -> Any:
    """The JSON of an answer."""
    return json.loads(body)
