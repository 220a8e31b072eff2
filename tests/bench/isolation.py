"""Whether broken sinks slow the healthy ones: five of these, alone and beside five that are broken.

The broken five: nobody listens; accepts and never answers; answers 503; answers 401; refuses every
hundredth event.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.bench import corpus
from tests.bench.daemon import Counter, run_configuration, usage

# Some seconds of work, so that what happens once at the start is small beside it.
_EVENTS = 200_000
_PAIRS = 5
_PATIENCE_S = 300

_FORMATS = ("cef", "json", "syslog", "leef", "raw")


@dataclass
class _Round:
    """What one run of the relay gave: events/s of the slowest healthy sink, CPU, what was asked."""

    rate: float
    cpu_s: float
    requests: dict[str, int]


def run() -> None:
    """Print throughput and CPU of the healthy sinks both ways, in turn, and their ratios."""
    rounds: dict[bool, list[_Round]] = {False: [], True: []}
    for pair in range(_PAIRS):
        # Alone first, then last: a machine that gets slower meanwhile favours neither.
        for broken in (False, True) if pair % 2 == 0 else (True, False):
            rounds[broken].append(_round(broken=broken))
    print(f"five healthy sinks, {_EVENTS} events each, medians of {_PAIRS} pairs in turn")
    for broken, words in ((False, "alone"), (True, "beside five broken ones")):
        rate = statistics.median(each.rate for each in rounds[broken])
        cpu_s = statistics.median(each.cpu_s for each in rounds[broken])
        print(f"  {words:26} {rate:10,.0f} events/s  {cpu_s:6.2f} s of CPU")
    pairs = list(zip(rounds[False], rounds[True], strict=True))
    print(f"  throughput beside / alone  {_spread([b.rate / a.rate for a, b in pairs])}")
    print(f"  CPU beside / alone         {_spread([b.cpu_s / a.cpu_s for a, b in pairs])}")
    asked = rounds[True][-1].requests
    print(f"  requests                   {', '.join(f'{asked[n]} {n}' for n in sorted(asked))}")


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.0%} ({min(ratios):.0%} to {max(ratios):.0%})"


def _round(*, broken: bool) -> _Round:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus.write(folder / "events.ndjson", _EVENTS)
        receivers = [Counter(_EVENTS) for _ in _FORMATS]
        sinks: dict[str, Any] = {
            f"healthy-{form}": {
                "protocol": "tcp", "server": "127.0.0.1", "port": receiver.port, "format": form,
            }
            for form, receiver in zip(_FORMATS, receivers, strict=True)
        }  # fmt: skip
        peers = _Peers()
        if broken:
            sinks |= peers.sinks()
        with run_configuration(folder, sinks) as process:
            for receiver in receivers:
                if not receiver.done.wait(_PATIENCE_S):
                    raise SystemExit(f"only {receiver.count} of {_EVENTS} events arrived")
            cpu_s, _ = usage(process.pid)
        peers.close()
        began = min(receiver.arrivals[0] for receiver in receivers)
        took_s = max(receiver.arrivals[-1] for receiver in receivers) - began
        return _Round(_EVENTS / took_s, cpu_s, peers.requests)


def _choosy(body: bytes) -> int:
    # By what the event is, so that the same one is refused again.
    return 400 if any(zlib.crc32(line) % 100 == 0 for line in body.splitlines()) else 200


_ANSWERS: dict[str, Callable[[bytes], int]] = {
    "busy": lambda body: 503, "locked": lambda body: 401, "choosy": _choosy,
}  # fmt: skip


@dataclass
class _Peers:
    """What the broken sinks send to, and how many requests each was sent."""

    requests: dict[str, int] = field(default_factory=dict)
    servers: list[ThreadingHTTPServer] = field(default_factory=list)

    def sinks(self) -> dict[str, Any]:
        """Start them all; the sinks towards them, by name."""
        self._silent = Counter(0, reads=False)
        tcp = {"protocol": "tcp", "server": "127.0.0.1"}
        sinks: dict[str, Any] = {
            "dead": {**tcp, "port": 9}, "silent": {**tcp, "port": self._silent.port},
        }  # fmt: skip
        for name in _ANSWERS:
            url = f"http://127.0.0.1:{self._serve(name)}/"
            sinks[name] = {"url": url, "authorization": "Bearer x"}
        return sinks

    def _serve(self, name: str) -> int:
        requests, answer = self.requests, _ANSWERS[name]
        requests[name] = 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                requests[name] += 1
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(answer(body))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass  # one line a request is too many

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # The relay is stopped in the middle of requests: that is no news.
        server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
        self.servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.server_port

    def close(self) -> None:
        """Stop serving."""
        for server in self.servers:
            server.shutdown()
            server.server_close()
