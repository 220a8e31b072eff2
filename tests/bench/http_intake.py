"""POSTs on this machine → fsynced and answered: batches of 500 events, and single ones."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

from tests.bench import corpus
from tests.bench.daemon import Counter, usage

_CONNECTIONS: Final = 8
_BATCH_EVENTS: Final = 500
_BATCHES: Final = 600
_SINGLES: Final = 8000
# A run that has not ended by then is broken, not slow.
_PATIENCE_S: Final = 120


def run() -> None:
    """Print events and requests a second; everything is also delivered, as CEF over TCP."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus.write(folder / "corpus", _BATCH_EVENTS)
        lines = (folder / "corpus").read_bytes().splitlines()
        array = b"[" + b",".join(lines) + b"]"
        _measure(folder / "arrays", "arrays of 500 events", [array], _BATCHES, _BATCH_EVENTS)
        ndjson = b"\n".join(lines)
        _measure(folder / "ndjson", "NDJSON of 500 events", [ndjson], _BATCHES, _BATCH_EVENTS)
        _measure(folder / "singles", "single events", lines, _SINGLES, 1)


def _measure(folder: Path, label: str, bodies: list[bytes], posts: int, events: int) -> None:
    folder.mkdir()
    receiver = Counter(posts * events)
    share = posts // _CONNECTIONS
    waits: list[list[float]] = [[] for _ in range(_CONNECTIONS)]
    with _relay(folder, receiver.port) as (process, port, endpoint):
        senders = [
            threading.Thread(target=_send, args=(port, bodies, share, waits[n]))
            for n in range(_CONNECTIONS)
        ]
        started, own_cpu_s = time.monotonic(), time.process_time()
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join(_PATIENCE_S)
        took = time.monotonic() - started
        own_cpu_s = time.process_time() - own_cpu_s
        commits = _commits(endpoint)
        if not receiver.done.wait(_PATIENCE_S):
            raise SystemExit(f"only {receiver.count} of {posts * events} events arrived")
        delivered = receiver.arrivals[-1] - started
        cpu_s, peak_mb = usage(process.pid)
    every = sorted(wait for each in waits for wait in each)
    print(f"{label}: {posts} posts on {_CONNECTIONS} connections, each answered after its fsync")
    print(f"  {posts * events / took:10,.0f} events/s, {posts / took:,.0f} posts/s answered")
    print(f"  {posts * events / delivered:10,.0f} events/s delivered")
    print(f"  {every[len(every) // 2] * 1e3:10.1f} ms to the answer, median;"
          f" 99 % {every[len(every) * 99 // 100] * 1e3:.1f} ms")  # fmt: skip
    print(f"  {cpu_s / posts * 1e6:10,.0f} µs of CPU per post, {peak_mb:.1f} MB at the most;"
          f" sender and receiver beside it {own_cpu_s / posts * 1e6:,.0f} µs")  # fmt: skip
    print(f"  {commits / posts:10.2f} commits per post")


def _send(port: int, bodies: list[bytes], posts: int, waits: list[float]) -> None:
    head = "POST /events HTTP/1.1\r\nHost: b\r\nContent-Type: application/{}\r\nContent-Length: {}"
    requests = [
        (head.format("json" if body[:1] == b"[" else "x-ndjson", len(body)) + "\r\n\r\n").encode()
        + body
        for body in bodies
    ]
    with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S) as connection:
        for n in range(posts):
            started = time.monotonic()
            connection.sendall(requests[n % len(requests)])
            answer = b""
            while b"}" not in answer:
                answer += connection.recv(4096)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(answer.decode())
            waits.append(time.monotonic() - started)


@contextlib.contextmanager
def _relay(folder: Path, port: int) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    sink = {"protocol": "tcp", "server": "127.0.0.1", "port": port, "format": "cef",
            "header": "none"}  # fmt: skip
    settings = {
        "state_dir": str(folder / "state"),
        "sources": {"hooks": {"type": "http", "listen": "http://127.0.0.1:0/events"}},
        "sinks": {"siem": sink},
        "endpoint": {"listen": "127.0.0.1:0"},
        "log": {"level": "info", "format": "json"},
        "shutdown_timeout": "1s",
    }
    config, log = folder / "siemrelay.yaml", folder / "log"
    config.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "siemrelay", "run", "-c", str(config)]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr)
    try:
        yield process, _port(log, "listening"), _port(log, "endpoint")
    finally:
        process.terminate()
        process.wait()


def _commits(endpoint: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{endpoint}/metrics", timeout=10) as answer:
        told = answer.read().decode()
    found = re.search(r"^siemrelay_buffer_commits_total(?:{.*})? (\S+)$", told, re.MULTILINE)
    assert found is not None, told
    return int(float(found[1]))


def _port(log: Path, event: str) -> int:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            if f'"{event}"' in line and (port := json.loads(line).get("port")):
                return int(port)
        time.sleep(0.05)
    raise SystemExit(log.read_text())
