"""TLS in front of librdkafka's mock cluster, which speaks none itself: a proxy that ends it.

Clients go on to where the brokers say they are, so the proxy puts its own port into what they say.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from contextlib import closing, suppress
from types import TracebackType
from typing import Self

_LENGTH = struct.Struct(">i")
_READ_BYTES = 1 << 16


class KafkaOverTls:
    """A TLS listener for a cluster of one broker; `bootstrap` is its address."""

    def __init__(self, broker: str, context: ssl.SSLContext) -> None:
        host, _, port = broker.rpartition(":")
        self._broker, self._context = (host, int(port)), context
        self._listener = socket.create_server(("127.0.0.1", 0))
        own_port = self._listener.getsockname()[1]
        self.bootstrap = f"127.0.0.1:{own_port}"
        # A broker's address in a response: the host's text, then the port in four bytes.
        self._told = host.encode() + _LENGTH.pack(int(port))
        self._tells = host.encode() + _LENGTH.pack(own_port)
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(10)
        for sock in list(self._open):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(client,)))
            self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        # A client that is refused in the handshake, or leaves, is what some tests are about.
        with closing(client), suppress(OSError):
            client.settimeout(10)
            tls = self._context.wrap_socket(client, server_side=True)
            with closing(tls), socket.create_connection(self._broker) as broker:
                self._open |= {tls, broker}
                back = threading.Thread(target=self._answers, args=(broker, tls))
                back.start()
                with suppress(OSError):
                    tls.settimeout(None)
                    while data := tls.recv(_READ_BYTES):
                        broker.sendall(data)
                with suppress(OSError):
                    broker.shutdown(socket.SHUT_RDWR)
                back.join(10)
                self._open -= {tls, broker}

    def _answers(self, broker: socket.socket, tls: ssl.SSLSocket) -> None:
        with suppress(OSError), broker.makefile("rb") as answers:
            while head := answers.read(_LENGTH.size):
                body = answers.read(_LENGTH.unpack(head)[0])
                tls.sendall(head + body.replace(self._told, self._tells))
        with suppress(OSError):
            tls.shutdown(socket.SHUT_RDWR)
