"""Whether broken sinks slow the healthy ones: five of these, alone and beside five that are broken.

The broken five: nobody listens; accepts and never answers; answers 503; answers 401; refuses every
hundredth event.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.bench import corpus
from tests.bench.daemon import Counter, run_configuration

_EVENTS = 100_000
_ROUNDS = 3
_PATIENCE_S = 300


def run() -> None:
    """Print the median throughput of the healthy sinks both ways, in turn, and their ratio."""
    rates: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(_ROUNDS):
        for broken in (False, True):
            rates[broken].append(_round(broken=broken))
    alone, beside = statistics.median(rates[False]), statistics.median(rates[True])
    print(f"five healthy sinks, {_EVENTS} events each, medians of {_ROUNDS} runs in turn")
    print(f"  alone                      {alone:10,.0f} events/s")
    print(f"  beside five broken ones    {beside:10,.0f} events/s ({beside / alone:.0%})")


def _round(*, broken: bool) -> float:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus.write(folder / "events.ndjson", _EVENTS)
        receivers = [Counter(_EVENTS) for _ in range(5)]
        formats = ("cef", "json", "syslog", "leef", "raw")
        sinks: dict[str, Any] = {
            f"healthy-{form}": {
                "protocol": "tcp", "server": "127.0.0.1", "port": receiver.port, "format": form,
            }
            for form, receiver in zip(formats, receivers, strict=True)
        }  # fmt: skip
        servers = _broken(sinks) if broken else []
        started = time.monotonic()
        with run_configuration(folder, sinks):
            for receiver in receivers:
                if not receiver.done.wait(_PATIENCE_S):
                    raise SystemExit(f"only {receiver.count} of {_EVENTS} events arrived")
        for server in servers:
            server.shutdown()
        return _EVENTS / (max(receiver.arrivals[-1] for receiver in receivers) - started)


def _broken(sinks: dict[str, Any]) -> list[ThreadingHTTPServer]:
    silent = Counter(0, reads=False)
    hundredth = itertools.count(1)
    lock = threading.Lock()

    def every_hundredth(body: bytes) -> int:
        with lock:
            return 400 if any(next(hundredth) % 100 == 0 for _ in body.splitlines()) else 200

    answers: dict[str, Callable[[bytes], int]] = {
        "busy": lambda body: 503, "locked": lambda body: 401, "choosy": every_hundredth,
    }  # fmt: skip
    sinks["dead"] = {"protocol": "tcp", "server": "127.0.0.1", "port": 9}
    sinks["silent"] = {"protocol": "tcp", "server": "127.0.0.1", "port": silent.port}
    servers = []
    for name, answer in answers.items():
        server = _serve(answer)
        servers.append(server)
        sinks[name] = {
            "url": f"http://127.0.0.1:{server.server_port}/",
            "authorization": "Bearer x",
        }
    return servers


def _serve(answer: Callable[[bytes], int]) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(answer(body))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass  # one line a request is too many

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
