"""Requests that two servers could read in two ways, or that are not HTTP: each gets one answer."""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress

import pytest

from tests.conftest import MakeDaemon
from tests.support.daemon import Daemon, until
from tests.support.http_sender import Sender, port_of, relay
from tests.support.listening import forwarded

HEAD = b"POST /events HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n"

SHAPES: dict[str, tuple[bytes, int]] = {
    "both lengths": (CHUNKED + b"Content-Length: 3\r\n\r\n0\r\n\r\nGET /x", 400),
    "two equal lengths": (HEAD + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n1", 400),
    "equal lengths apart": (HEAD + b"Content-Length: 1\r\nX: y\r\ncontent-length: 1\r\n\r\n1", 400),
    "two lengths": (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n1", 400),
    "a list of lengths": (HEAD + b"Content-Length: 1, 1\r\n\r\n1", 400),
    "a length with a sign": (HEAD + b"Content-Length: +1\r\n\r\n1", 400),
    "a length below nothing": (HEAD + b"Content-Length: -1\r\n\r\n1", 400),
    "a length in hexadecimal": (HEAD + b"Content-Length: 0x1\r\n\r\n1", 400),
    "a length with an underscore": (HEAD + b"Content-Length: 1_0\r\n\r\n1234567890", 400),
    "a length in other digits": (
        HEAD + "Content-Length: \N{ARABIC-INDIC DIGIT ONE}\r\n\r\n1".encode(),
        400,
    ),
    "an endless length": (HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n1", 400),
    "a huge length": (HEAD + b"Content-Length: " + b"9" * 20 + b"\r\n\r\n1", 413),
    "no length": (HEAD + b"Content-Length:\r\n\r\n1", 400),
    "space before the colon": (HEAD + b"Content-Length : 1\r\n\r\n1", 400),
    "another coding": (HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    "two codings": (CHUNKED + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n", 501),
    "codings in a list": (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "a vertical tab": (HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "a chunk below nothing": (CHUNKED + b"\r\n-1\r\n1\r\n0\r\n\r\n", 400),
    "a chunk of many zeros": (CHUNKED + b"\r\n" + b"0" * 60_000 + b"1\r\n1\r\n0\r\n\r\n", 400),
    "a chunk without its end": (CHUNKED + b"\r\n1\r\n1XX0\r\n\r\n", 400),
    "a chunk of 20 digits": (CHUNKED + b"\r\n" + b"F" * 21 + b"\r\n1\r\n", 400),
    "huge trailers": (CHUNKED + b"\r\n0\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n", 431),
    "endless trailers": (CHUNKED + b"\r\n0\r\n" + b"X: y\r\n" * 300_000, 431),
    "bare line feeds": (b"POST /events HTTP/1.1\nHost: a\nContent-Length: 1\n\n1", 400),
    "a folded line": (HEAD + b"X: y\r\n z\r\nContent-Length: 1\r\n\r\n1", 400),
    "a NUL": (b"POST /events HTTP/1.1\r\nHost: a\0b\r\n\r\n", 400),
    "no host": (b"POST /events HTTP/1.1\r\nContent-Length: 1\r\n\r\n1", 400),
    "two hosts": (HEAD + b"Host: b\r\nContent-Length: 1\r\n\r\n1", 400),
    "300 fields": (HEAD + b"".join(b"X%d: y\r\n" % n for n in range(300)) + b"\r\n", 431),
    "a long field": (HEAD + b"X: " + b"y" * 40_000 + b"\r\n\r\n", 431),
    "a long method": (b"A" * 40_000, 431),
    "carriage returns": (b"\r" * 50_000, 431),
    "empty lines": (b"\r\n" * 50_000, 400),
    "HTTP/0.9": (b"GET /events\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", 505),
    "HTTP/3": (b"GET /events HTTP/3.0\r\nHost: a\r\n\r\n", 505),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 500, 400),
}
"""What is sent to an open webhook, and the status of its only answer."""


def test_what_could_be_read_in_two_ways_is_refused_and_stores_nothing(
    make_daemon: MakeDaemon,
) -> None:
    daemon = relay(make_daemon).start()
    for name, (sent, status) in SHAPES.items():
        with Sender(port_of(daemon)) as sender:
            with suppress(OSError):
                sender.send(sent)
            answer = sender.answer()
            assert answer[0] == status, name
            assert len(answer[2]) < 400, "an answer repeats little of what was sent"
            with suppress(ConnectionError):
                assert sender.at_end(), "what follows is not read as another request"
    with Sender(port_of(daemon)) as sender:
        assert sender.post(b'{"n":1}')[0] == 200
    until(lambda: forwarded(daemon) == [b'{"n":1}'])
    assert daemon.terminate() == 0


def crowd(stack: ExitStack, port: int, count: int, first: bytes, addresses: int = 4) -> None:
    """Connections of a few addresses that begin something and do not go on."""
    for number in range(count):
        sock = stack.enter_context(
            socket.create_connection(
                ("127.0.0.1", port),
                timeout=20,
                source_address=(f"127.0.0.{2 + number % addresses}", 0),
            )
        )
        sock.sendall(first)


def answered(port: int, path: bytes) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.sendall(b"GET %b HTTP/1.0\r\n\r\n" % path)
        return sock.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("target", ["endpoint", "hooks"])
def test_a_crowd_that_begins_requests_gives_way_to_a_real_one(
    make_daemon: MakeDaemon, target: str
) -> None:
    """Three times as many as there are slots; 400 kept the endpoint silent for 12 seconds."""
    daemon: Daemon = relay(make_daemon).start()
    hooks, endpoint = port_of(daemon), int(daemon.said("endpoint listening")[0]["port"])
    port, path = (endpoint, b"/healthz") if target == "endpoint" else (hooks, b"/events")
    with ExitStack() as stack:
        crowd(stack, port, 400 if target == "endpoint" else 800, b"POST /e HTTP/1.1\r\nHost: ")
        before = daemon.processor_s()
        assert answered(port, path)
        assert daemon.processor_s() - before < 3
    assert daemon.terminate() == 0
