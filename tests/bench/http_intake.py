"""POSTs on this machine → fsynced and answered: batches of 500 events, and single ones."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from tests.bench import corpus
from tests.bench.daemon import Counter, usage

_CONNECTIONS: Final = 8
_BATCH_EVENTS: Final = 500
_BATCHES: Final = 600
_SINGLES: Final = 8000
_WRK_S: Final = 6
# A run that has not ended by then is broken, not slow.
_PATIENCE_S: Final = 120


def run() -> None:
    """Print events and requests a second; everything is also delivered, as CEF over TCP."""
    print(f"sender, receiver and relay share {os.cpu_count()} cores; each answer follows its"
          " fsync")  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus.write(folder / "corpus", _BATCH_EVENTS)
        lines = (folder / "corpus").read_bytes().splitlines()
        array = b"[" + b",".join(lines) + b"]"
        _measure(folder / "arrays", "arrays of 500 events", [array], _BATCHES, _BATCH_EVENTS)
        ndjson = b"\n".join(lines)
        _measure(folder / "ndjson", "NDJSON of 500 events", [ndjson], _BATCHES, _BATCH_EVENTS)
        _measure(folder / "singles", "single events", lines, _SINGLES, 1)
        if shutil.which("wrk"):
            _wrk(folder / "wrk-arrays", "wrk, arrays of 500 events", array, _BATCH_EVENTS)
            _wrk(folder / "wrk-singles", "wrk, single events", lines[0], 1)
        else:
            print("no wrk here: a sender in C (Debian's package `wrk`) leaves more to the relay")


def _measure(folder: Path, label: str, bodies: list[bytes], posts: int, events: int) -> None:
    folder.mkdir()
    receiver = Counter(posts * events)
    share = posts // _CONNECTIONS
    waits: list[list[float]] = [[] for _ in range(_CONNECTIONS)]
    with _relay(folder, receiver.port) as relay:
        senders = [
            threading.Thread(target=_send, args=(relay.port, bodies, share, waits[n]))
            for n in range(_CONNECTIONS)
        ]
        started, own_s = time.monotonic(), time.process_time()
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join(_PATIENCE_S)
        took, own_s = time.monotonic() - started, time.process_time() - own_s
        commits = relay.commits()
        if not receiver.done.wait(_PATIENCE_S):
            raise SystemExit(f"only {receiver.count} of {posts * events} events arrived")
        delivered = receiver.arrivals[-1] - started
        cpu_s, peak_mb = usage(relay.process.pid)
    every = sorted(wait for each in waits for wait in each)
    print(f"{label}: {posts} posts on {_CONNECTIONS} connections")
    print(f"  {posts * events / took:10,.0f} events/s, {posts / took:,.0f} posts/s answered")
    print(f"  {posts * events / delivered:10,.0f} events/s delivered")
    print(f"  {every[len(every) // 2] * 1e3:10.1f} ms to the answer, median;"
          f" 99 % {every[len(every) * 99 // 100] * 1e3:.1f} ms")  # fmt: skip
    print(f"  {commits / posts:10.2f} commits per post")
    print(f"  {cpu_s / posts * 1e6:10,.0f} µs of CPU per post, {peak_mb:.1f} MB at the most")
    print(f"  {own_s / took:10.0%} of a core went to sender and receiver meanwhile")


def _wrk(folder: Path, label: str, body: bytes, events: int) -> None:
    folder.mkdir()
    (folder / "body").write_bytes(body)
    script = folder / "post.lua"
    script.write_text(_POST.format(body=folder / "body"))
    receiver = Counter(1)
    with _relay(folder, receiver.port) as relay:
        done = subprocess.run(
            ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{_WRK_S}s", "-s", script,
             f"http://127.0.0.1:{relay.port}/events"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        commits = relay.commits()
    said = done.stdout.partition("SUMMARY ")[2].split()
    posts, micros, refused = (int(number) for number in said[:3])
    if refused:
        raise SystemExit(f"{refused} of {posts} posts were not answered with 200: {done.stdout}")
    each_s = posts / micros * 1e6
    print(f"{label}: {posts} posts on {_CONNECTIONS} connections")
    print(f"  {each_s * events:10,.0f} events/s, {each_s:,.0f} posts/s answered")
    print(f"  {commits / posts:10.2f} commits per post")


_POST: Final = """
wrk.method, wrk.headers["Content-Type"] = "POST", "application/json"
wrk.body = io.open("{body}", "rb"):read("*a")
done = function(summary)
  local errors = summary.errors
  print("SUMMARY " .. summary.requests .. " " .. summary.duration .. " "
    .. errors.status + errors.connect + errors.read + errors.timeout)
end
"""


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


@dataclass
class _Relay:
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def port(self) -> int:
        return self._port("listening")

    def commits(self) -> int:
        """Transactions of records so far."""
        url = f"http://127.0.0.1:{self._port('endpoint listening')}/metrics"
        with urllib.request.urlopen(url, timeout=_PATIENCE_S) as answer:
            text = answer.read().decode()
        return int(float(text.partition("\nsiemrelay_buffer_commits_total ")[2].split()[0]))

    def _port(self, event: str) -> int:
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            for line in self.log.read_text().splitlines():
                if f'"{event}"' in line:
                    return int(json.loads(line)["port"])
            time.sleep(0.05)
        raise SystemExit(self.log.read_text())


@contextlib.contextmanager
def _relay(folder: Path, port: int) -> Iterator[_Relay]:
    sink = {"protocol": "tcp", "server": "127.0.0.1", "port": port, "format": "cef",
            "header": "none"}  # fmt: skip
    settings = {
        "state_dir": str(folder / "state"),
        "self_audit": False,
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
    relay = _Relay(process, log)
    try:
        assert relay.port, "it listens"
        yield relay
    finally:
        process.terminate()
        process.wait()
