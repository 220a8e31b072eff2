"""CPU and latency at ordinary load: some events a second, one line at a time, to a TCP receiver.

Audit logs run at 1 to 1,000 events a second. rsyslog, where it is installed, runs the same loads
beside the relay with a queue on disk (`queue.type="Disk"`, no fsync).
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from tests.bench import corpus
from tests.bench.daemon import connected, rsyslog, rsyslogd, run_settings
from tests.support.servers import free_port

_MEASURED_S: Final = 8.0
_IDLE_S: Final = 10.0
# Connecting, the first session's probation and every import are over by then.
_SETTLED_S: Final = 2.5
# After so long without surprises the relay looks less often for what no event reports.
_QUIET_S: Final = 32.0
_PATIENCE_S: Final = 30.0
_MANY_SINKS: Final = 10


@dataclass(frozen=True)
class Load:
    """`per_s` events a second, `burst` of them one right after the other."""

    name: str
    per_s: int
    burst: int = 1


_LOADS: Final = (
    Load("idle", 0),
    Load("10/s", 10),
    Load("100/s", 100),
    Load("1,000/s", 1000),
    Load("5,000/s in bursts of 100", 5000, 100),
)


class Arrivals:
    """Receives lines on a TCP port, on any number of connections, and notes when each came."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(1 << 18):
                self.times += [time.monotonic()] * data.count(b"\n")


class Posts(Arrivals):
    """Receives newline-delimited records in HTTP requests."""

    def __init__(self) -> None:
        self.times = []
        times = self.times

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                times.extend([time.monotonic()] * body.count(b"\n"))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass  # one line a request is too many

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = server.server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()


def run(seconds: float = _MEASURED_S) -> None:
    """Print a table for each way in and out: percent of a core, CPU per event, latency."""
    print("one event at a time; CPU is of the forwarder alone; latency from the write to the byte")
    _table("file to TCP", _relay_file, Arrivals, _LOADS, seconds)
    few = _LOADS[1:]
    _table("syslog/TCP to TCP", _relay_syslog, Arrivals, few, seconds)
    _table("file to HTTP", _relay_http, Posts, few, seconds)
    _table(f"file to {_MANY_SINKS} TCP sinks", _relay_many, Arrivals, few, seconds, _MANY_SINKS)
    if rsyslogd():
        _table("rsyslog, file to TCP", _rsyslog, Arrivals, few, seconds)
    else:
        print("no rsyslogd here to compare with")


Writer = Callable[[bytes], object]
Start = Callable[
    [Path, int], contextlib.AbstractContextManager[tuple[subprocess.Popen[bytes], Writer]]
]


def _table(
    title: str, start: Start, receiver: type[Arrivals], loads: tuple[Load, ...], seconds: float,
    copies: int = 1,
) -> None:  # fmt: skip
    print(title)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus.write(folder / "corpus", 2000)
        lines = (folder / "corpus").read_bytes().splitlines(keepends=True)
        arrivals = receiver()
        with start(folder, arrivals.port) as (process, write):
            sent = 0
            for line in lines[:3]:  # the first connection, the first of every path
                write(line)
                sent += 1
                _wait(arrivals, sent * copies)
            time.sleep(_SETTLED_S)
            for load in loads:
                sent += _measure(load, process.pid, write, lines, arrivals, sent, copies, seconds)


def _measure(
    load: Load, pid: int, write: Writer, lines: list[bytes], arrivals: Arrivals, before: int,
    copies: int, seconds: float,
) -> int:  # fmt: skip
    """Write the load for so long and print a line; returns how many events that were."""
    if not load.per_s:
        time.sleep(_QUIET_S)
    cpu_s, started = _cpu_s(pid), time.monotonic()
    if not load.per_s:
        time.sleep(_IDLE_S)
        used_s = _cpu_s(pid) - cpu_s
        print(f"  {load.name:26} {used_s / _IDLE_S * 100:6.2f} % of a core", flush=True)
        return 0
    written: list[float] = []
    gap_s = load.burst / load.per_s
    for turn in range(int(seconds / gap_s)):
        time.sleep(max(started + turn * gap_s - time.monotonic(), 0.0))
        for _ in range(load.burst):
            written.append(time.monotonic())
            write(lines[len(written) % len(lines)])
    time.sleep(max(started + seconds - time.monotonic(), 0.0))
    _wait(arrivals, (before + len(written)) * copies)
    took_s = time.monotonic() - started
    used_s = _cpu_s(pid) - cpu_s
    # Several sinks get each event at about the same time: sorted, the last copy of each counts.
    came = sorted(arrivals.times[before * copies :])[copies - 1 :: copies]
    waits = sorted(there - here for here, there in zip(written, came, strict=True))
    late = waits[len(waits) * 99 // 100]
    print(
        f"  {load.name:26} {used_s / took_s * 100:6.2f} % of a core "
        f"{used_s / len(written) * 1e6:8.0f} µs/event   latency median "
        f"{waits[len(waits) // 2] * 1e3:6.2f} ms, 99 % {late * 1e3:6.2f} ms",
        flush=True,
    )
    return len(written)


def _wait(arrivals: Arrivals, count: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while len(arrivals.times) < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"only {len(arrivals.times)} of {count} events arrived")
        time.sleep(0.01)


def _cpu_s(pid: int) -> float:
    """CPU seconds of a process, of threads that have ended too.

    As /proc/PID/stat, but in nanoseconds: see clock_getcpuclockid(3), which Python does not have.
    """
    return time.clock_gettime(~pid << 3 | 2)


# -- what is measured --------------------------------------------------------


def _sink(port: int) -> dict[str, Any]:
    return {"protocol": "tcp", "server": "127.0.0.1", "port": port, "format": "cef",
            "header": "none", "events": "Any Audit Record"}  # fmt: skip


@contextlib.contextmanager
def _file_relay(
    folder: Path, sinks: dict[str, Any]
) -> Iterator[tuple[subprocess.Popen[bytes], Writer]]:
    path = folder / "live.ndjson"
    path.touch()
    source = {"type": "file", "path": str(path), "product": "alm"}
    with run_settings(folder, source, sinks) as process, path.open("ab", buffering=0) as out:
        yield process, out.write


@contextlib.contextmanager
def _relay_file(folder: Path, port: int) -> Iterator[tuple[subprocess.Popen[bytes], Writer]]:
    with _file_relay(folder, {"siem": _sink(port)}) as running:
        yield running


@contextlib.contextmanager
def _relay_many(folder: Path, port: int) -> Iterator[tuple[subprocess.Popen[bytes], Writer]]:
    with _file_relay(folder, {f"siem-{n}": _sink(port) for n in range(_MANY_SINKS)}) as running:
        yield running


@contextlib.contextmanager
def _relay_http(folder: Path, port: int) -> Iterator[tuple[subprocess.Popen[bytes], Writer]]:
    sink = {"url": f"http://127.0.0.1:{port}/", "format": "json"}
    with _file_relay(folder, {"siem": sink}) as running:
        yield running


@contextlib.contextmanager
def _relay_syslog(folder: Path, port: int) -> Iterator[tuple[subprocess.Popen[bytes], Writer]]:
    listen = free_port()
    source = {"type": "syslog", "listen": f"tcp://127.0.0.1:{listen}", "product": "alm"}
    with run_settings(folder, source, {"siem": _sink(port)}) as process:
        sender = connected(listen)
        header = b"<134>1 2026-01-01T00:00:00.000Z host app 7 ID1 - "
        # Nagle's algorithm would hold the lines back, not the relay.
        sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with sender:
            yield process, lambda line: sender.sendall(header + line)


@contextlib.contextmanager
def _rsyslog(folder: Path, port: int) -> Iterator[tuple[subprocess.Popen[bytes], Writer]]:
    path = folder / "live.ndjson"
    path.touch()
    (folder / "spool").mkdir()
    settings = f"""
global(workDirectory="{folder}/spool" maxMessageSize="64k")
module(load="imfile")
template(name="line" type="string" string="%msg%\\n")
ruleset(name="out" queue.type="Disk" queue.filename="q" queue.spoolDirectory="{folder}/spool") {{
  action(type="omfwd" target="127.0.0.1" port="{port}" protocol="tcp" template="line")
}}
input(type="imfile" file="{path}" tag="audit" ruleset="out" persistStateInterval="1000")
"""
    with rsyslog(folder, settings) as process, path.open("ab", buffering=0) as out:
        yield process, out.write
