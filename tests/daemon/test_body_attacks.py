"""Bodies made to stop the relay: what the others get meanwhile, and what the sender is answered."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from tests.conftest import MakeDaemon
from tests.support.daemon import Daemon, until
from tests.support.http_sender import Sender, port_of, relay

# What the machine is allowed beyond the promise (half a second and one): it may be busy.
HEALTH_S = 1.0
DELAY_S = 2.0


class Others:
    """What the others get: the worst answer of /healthz, the worst delay of a syslog record."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._health = int(daemon.said("endpoint")[0]["port"])
        self._syslog, self._out = port_of(daemon, "other"), daemon.directory / "out"
        self.worst_health_s = self.worst_delay_s = 0.0
        self.asked = self.delivered = 0
        self._over = threading.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        with ThreadPoolExecutor(2) as threads:
            watching = [threads.submit(self._ask), threads.submit(self._send)]
            try:
                yield
            finally:
                self._over.set()
                for each in watching:
                    each.result()

    def _ask(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            with socket.create_connection(("127.0.0.1", self._health), timeout=30) as sock:
                sock.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                assert sock.recv(9000).startswith(b"HTTP/1.1 200")
            self.worst_health_s = max(self.worst_health_s, time.monotonic() - began)
            self.asked += 1
            self._over.wait(0.02)

    def _send(self) -> None:
        with (
            socket.create_connection(("127.0.0.1", self._syslog)) as sock,
            self._out.open("rb") as out,
        ):
            kept = b""

            def arrived(wanted: bytes) -> bool:
                nonlocal kept
                kept = kept[-99:] + out.read()
                return wanted in kept

            while not self._over.is_set():
                began, record = time.monotonic(), b"<13>beside %d\n" % self.delivered
                sock.sendall(record)
                until(partial(arrived, record), 60)
                self.worst_delay_s = max(self.worst_delay_s, time.monotonic() - began)
                self.delivered += 1
                self._over.wait(0.05)

    def are_served(self) -> None:
        assert self.asked > 3
        assert self.delivered > 1
        assert self.worst_health_s < HEALTH_S
        assert self.worst_delay_s < DELAY_S


def attacked(make_daemon: MakeDaemon, **source: Any) -> tuple[Daemon, Others]:
    """A relay with the source under attack, and a syslog source beside it."""
    daemon = relay(make_daemon, **source)
    daemon.config["sources"]["other"] = {"type": "syslog", "listen": "tcp://127.0.0.1:0"}
    daemon.config["sinks"]["file"]["rotate_size"] = "4GiB"
    (daemon.directory / "out").touch()
    daemon.start()
    return daemon, Others(daemon)


def zipped(body: bytes) -> bytes:
    return gzip.compress(body, 9)


JSON, NDJSON, TEXT = "application/json", "application/x-ndjson", "text/plain"
MILLIONS = 5_000_000

BOMBS: dict[str, tuple[str, Callable[[], bytes], set[int]]] = {
    "lines": (TEXT, lambda: b"a\n" * MILLIONS, {413}),
    "blank lines": (TEXT, lambda: b"\n" * MILLIONS, {400}),
    "values": (NDJSON, lambda: b"1\n" * MILLIONS, {413}),
    "elements": (JSON, lambda: b"[" + b"1," * MILLIONS + b"1]", {413}),
    "nested": (JSON, lambda: b"[[" + b"[]," * 3_000_000 + b"1]]", {200}),
    "deep": (JSON, lambda: b"[" * MILLIONS, {400}),
    "half surrogates": (JSON, lambda: b'["' + rb"\ud800" * 1_700_000 + b'"]', {400}),
    "escapes": (JSON, lambda: b'{"message":"' + rb"\n" * MILLIONS + b'"}', {200}),
    "a fault at the end": (JSON, lambda: b"[" + b"1," * MILLIONS + b"}", {400, 413}),
    "commas in a text": (JSON, lambda: b'["' + b"}," * MILLIONS + b'"]', {200}),
    "more than max_body": (TEXT, lambda: b"a\n" * (4 * MILLIONS), {413}),
}
"""What is posted (made when needed), as what, and how it may be answered."""


@pytest.mark.parametrize("bomb", BOMBS)
def test_no_body_keeps_the_others_waiting(make_daemon: MakeDaemon, bomb: str) -> None:
    """Sixteen at a time, each some KiB of gzip."""
    daemon, others = attacked(make_daemon)
    content_type, make, statuses = BOMBS[bomb]
    body = zipped(make())
    assert len(body) < 64 * 1024

    def post(_: int) -> int:
        with Sender(port_of(daemon)) as sender:
            sender.socket.settimeout(60)
            return sender.post(body, Content_Encoding="gzip", Content_Type=content_type)[0]

    with others.watched(), ThreadPoolExecutor(16) as attackers:
        answers = set(attackers.map(post, range(16)))
    assert answers <= statuses | {503}
    assert daemon.peak_mb() < 512
    others.are_served()
    assert daemon.terminate() == 0
