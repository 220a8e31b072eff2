"""UDP at 50,000 datagrams a second: what arrives, what the kernel dropped, what it costs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Final

import yaml

from tests.servers import free_port

_RATE: Final = 50_000
_BYTES: Final = 300


def run(seconds: float = 10.0) -> None:
    """Send for so long, then print sent = stored + lost."""
    with tempfile.TemporaryDirectory() as name:
        port, endpoint, file = free_port(), free_port(), Path(name) / "siemrelay.yaml"
        file.write_text(yaml.safe_dump({
            "state_dir": f"{name}/state",
            "sources": {"logs": {"type": "syslog", "listen": f"udp://127.0.0.1:{port}"}},
            "sinks": {"out": {"protocol": "file", "path": f"{name}/out", "format": "raw"}},
            "endpoint": {"listen": f"127.0.0.1:{endpoint}"},
        }))  # fmt: skip
        file.chmod(0o600)
        process = subprocess.Popen([sys.executable, "-m", "siemrelay", "run", "-c", str(file)])
        try:
            while not _answers(endpoint):
                time.sleep(0.05)
            before = _cpu_s(process.pid)
            sent, took_s = _send(port, seconds)
            stored = lost = -1
            deadline = time.monotonic() + 30
            while stored + lost != sent and time.monotonic() < deadline:
                time.sleep(0.2)
                stored, lost = _metric(endpoint, "records_total"), _metric(endpoint, "lost_total")
            cpu_s = _cpu_s(process.pid) - before
            print(
                f"{sent} datagrams of {_BYTES} bytes in {took_s:.1f} s ({sent / took_s:,.0f}/s): "
                f"{stored} stored, {lost} lost by the kernel's count, {sent - stored - lost} "
                f"unaccounted for; {cpu_s / sent * 1e6:.1f} µs of CPU each"
            )
        finally:
            process.terminate()
            process.wait(30)


def _send(port: int, seconds: float) -> tuple[int, float]:
    sent, began = 0, time.monotonic()
    message = b"<13>1 2026-01-01T00:00:00Z host app - - - " + b"x" * _BYTES
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        while (now := time.monotonic() - began) < seconds:
            while sent < now * _RATE:
                sock.send(message[:_BYTES])
                sent += 1
            time.sleep(0.001)
    return sent, time.monotonic() - began


def _answers(port: int) -> bool:
    try:
        _metric(port, "records_total")
    except OSError:
        return False
    return True


def _metric(port: int, name: str) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(f"siemrelay_source_{name}" + "{"):
                return int(float(line.split()[-1]))
    raise OSError(f"no metric {name}")


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
