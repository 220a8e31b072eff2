"""Bystanders of an attack: what they are served while it goes on."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from tests.support.daemon import Daemon, until
from tests.support.http_sender import port_of

# The longest that an answer of the endpoint may take.
HEALTH_S = 0.5

# A record of another source is promised within a second. Its processor time may be half as much
# again: threads that store and compress work beside the one that decodes and formats.
DELAY_S = 1.5

# No wait may be this long, however busy the machine is.
HANGS_S = 30.0


class Bystanders:
    """One asks for /healthz, one sends records to the syslog source `other` and waits for each.

    Their records come out in the file `out`, which is not rotated: see `with_bystanders`.

    A wait counts for the time that it took, or for the processor time that the daemon used
    meanwhile if that is less: the daemon is not to blame for other processes on the machine.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._health = int(daemon.said("endpoint listening")[0]["port"])
        self._syslog, self._out = port_of(daemon, "other"), daemon.directory / "out"
        self.worst_health_s = self.worst_delay_s = self.longest_s = 0.0
        self.asked = self.delivered = 0
        self._over = threading.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        with ThreadPoolExecutor(2) as threads:
            watching = [threads.submit(self._ask), threads.submit(self._send)]
            try:
                yield
                # A busy machine may have let them ask once or twice only.
                until(lambda: self.asked > 3 and self.delivered > 1, HANGS_S)
            finally:
                self._over.set()
                for each in watching:
                    each.result()

    def _ask(self) -> None:
        while not self._over.is_set():
            began = self._now()
            with socket.create_connection(("127.0.0.1", self._health), timeout=30) as sock:
                sock.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                assert sock.recv(9000).startswith(b"HTTP/1.1 200")
            self.worst_health_s = max(self.worst_health_s, self._since(began))
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
                began, record = self._now(), b"beside-%d-" % self.delivered
                sock.sendall(b"<13>%b\n" % record)
                until(partial(arrived, record), 60)
                self.worst_delay_s = max(self.worst_delay_s, self._since(began))
                self.delivered += 1
                self._over.wait(0.05)

    def are_served(self) -> None:
        """Neither waited longer than is promised."""
        assert self.worst_health_s < HEALTH_S
        assert self.worst_delay_s < DELAY_S
        assert self.longest_s < HANGS_S

    def _now(self) -> tuple[float, float]:
        return time.monotonic(), self._daemon.processor_s()

    def _since(self, began: tuple[float, float]) -> float:
        wall_s, processor_s = (now - before for now, before in zip(self._now(), began, strict=True))
        self.longest_s = max(self.longest_s, wall_s)
        return min(wall_s, processor_s)


def with_bystanders(daemon: Daemon) -> Bystanders:
    """Add the source `other` to a configuration whose only sink is a file, and start the daemon."""
    daemon.config["sources"]["other"] = {"type": "syslog", "listen": "tcp://127.0.0.1:0"}
    (sink,) = daemon.config["sinks"].values()
    sink["rotate_size"] = "4GiB"
    (daemon.directory / "out").touch()
    daemon.start()
    return Bystanders(daemon)
