"""An HTTP receiver for tests, each request answered as the test wants it, with or without TLS."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.receivers.sockets import Receiver
from tests.support.servers import free_port


class Request:
    """One POST: its target, its headers (lower-case names) and the records in its body."""

    def __init__(self, target: str, headers: dict[str, str], body: bytes) -> None:
        self.target, self.headers, self.body = target, headers, body
        self.at = time.monotonic()

    @property
    def content(self) -> bytes:
        """The body, decompressed."""
        return gzip.decompress(self.body) if "content-encoding" in self.headers else self.body

    @property
    def messages(self) -> list[bytes]:
        body = self.content
        if self.headers.get("content-type") == "application/json":
            return [json.dumps(item).encode() for item in json.loads(body)]
        return body.splitlines()


class Answer:
    """What the receiver says to a request; records count as arrived only with a 2xx."""

    def __init__(self, status: int, words: str = "", **headers: str) -> None:
        self.status, self.words, self.body = status, words, words.encode()
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


TAKEN = Answer(200)


def binary(body: bytes) -> Answer:
    """A 200 with such a body."""
    answer = Answer(200)
    answer.body = body
    return answer


class HttpReceiver(Receiver):
    """POSTed records, each request answered by `answer`, which may be changed at any time."""

    def __init__(
        self, answer: Callable[[Request], Answer] = lambda request: TAKEN, *,
        tls: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.answer = answer
        self.requests: list[Request] = []
        self._server = _Server(self)
        if tls is not None:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = self._server.server_address[1]
        self.scheme = "http" if tls is None else "https"
        self._spawn(self._server.serve_forever, 0.05)

    def taken(self, request: Request) -> list[bytes]:
        """What has arrived with a request that was answered by 2xx."""
        return request.messages

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/events"

    def close(self) -> None:
        self._server.shutdown()
        self._server.drop_connections()
        self._server.server_close()
        self._join()


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, receiver: HttpReceiver) -> None:
        self.receiver = receiver
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", free_port()), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def drop_connections(self) -> None:
        """Kept-alive connections would hold their threads."""
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that breaks off, or does not like the certificate, is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(length := int(headers["content-length"]))
        if len(body) < length:
            self.close_connection = True  # the sender died in the middle of it
            return
        request = Request(self.path, headers, body)
        receiver = self.server.receiver
        receiver.requests.append(request)
        answer = receiver.answer(request)
        if 200 <= answer.status < 300:
            receiver.arrived.add(receiver.taken(request))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        """The test says what happened."""
