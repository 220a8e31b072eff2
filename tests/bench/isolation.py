"""Whether broken sinks slow the healthy ones: five of these, alone and beside five that are broken.

The broken five: nobody listens; accepts and never answers; answers 503; answers 401; refuses every
hundredth event. Their servers are a process of their own, so that what slows the healthy sinks is
the relay and not this program.
"""

from __future__ import annotations

import contextlib
import re
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.bench import corpus
from tests.bench.daemon import Counter, run_configuration, until_all_arrived

_EVENTS = 200_000
_ROUNDS = 5
_HEALTHY = ("cef", "json", "syslog", "leef", "raw")
_SEQUENCE = re.compile(rb'"sequence":(\d+)')


def run() -> None:
    """Print what the healthy sinks come to alone and beside the broken ones, and the ratios.

    The two ways take turns; a ratio is of two neighbours, so that what else the machine does
    weighs on both. The relay's CPU time is told as well: it depends less on that.
    """
    pairs = []
    with _broken_servers() as broken:
        for _ in range(_ROUNDS):
            pairs.append((_round({}), _round(broken)))
    print(f"five healthy sinks, {_EVENTS} events each, medians of {_ROUNDS} pairs in turn")
    for name, at, unit in (("throughput", 0, "events/s"), ("CPU of the relay", 1, "s")):
        alone, beside = (statistics.median(pair[way][at] for pair in pairs) for way in (0, 1))
        ratio = statistics.median(pair[1][at] / pair[0][at] for pair in pairs)
        print(f"  {name:18} alone {alone:10,.2f}, beside five broken ones {beside:10,.2f} {unit} "
              f"({ratio:.0%})")  # fmt: skip


def _round(broken: dict[str, Any]) -> tuple[float, float]:
    """Events a second of the slowest healthy sink and the relay's CPU seconds, from the first
    event that arrives: what a start costs is not a sink's.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus.write(folder / "events.ndjson", _EVENTS)
        receivers = [Counter(_EVENTS) for _ in _HEALTHY]
        sinks: dict[str, Any] = {
            f"healthy-{form}": {
                "protocol": "tcp", "server": "127.0.0.1", "port": receiver.port, "format": form,
            }
            for form, receiver in zip(_HEALTHY, receivers, strict=True)
        }  # fmt: skip
        if broken:
            silent = Counter(0, reads=False)
            sinks["silent"] = {"protocol": "tcp", "server": "127.0.0.1", "port": silent.port}
        with run_configuration(folder, sinks | broken) as process:
            took = until_all_arrived(process, receivers)
        return _EVENTS / took.seconds, took.cpu_s


@contextlib.contextmanager
def _broken_servers() -> Iterator[dict[str, Any]]:
    """The sinks of servers that answer, but not as one would like, and of one that is not there."""
    command = [sys.executable, "-m", "tests.bench.isolation"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            ports = {name: int(process.stdout.readline()) for name in _ANSWERS}
            yield {
                "dead": {"protocol": "tcp", "server": "127.0.0.1", "port": 9},
                **{
                    name: {"url": f"http://127.0.0.1:{port}/", "authorization": "Bearer x"}
                    for name, port in ports.items()
                },
            }
        finally:
            process.terminate()


def _every_hundredth(body: bytes) -> int:
    return 400 if any(int(number) % 100 == 0 for number in _SEQUENCE.findall(body)) else 200


_ANSWERS: dict[str, Callable[[bytes], int]] = {
    "busy": lambda body: 503, "locked": lambda body: 401, "choosy": _every_hundredth,
}  # fmt: skip


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

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a relay that is stopped in the middle of a request

    return Server(("127.0.0.1", 0), Handler)


if __name__ == "__main__":
    for _answer in _ANSWERS.values():
        _server = _serve(_answer)
        threading.Thread(target=_server.serve_forever).start()
        print(_server.server_port, flush=True)
