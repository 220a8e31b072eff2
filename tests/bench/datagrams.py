"""UDP at 50,000 datagrams a second: what arrives, what the kernel dropped, what it costs."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final

import yaml

from tests.support.servers import free_port

_RATE: Final = 50_000
_BYTES: Final = 300
_PATIENCE_S: Final = 30.0


def run(seconds: float = 10.0) -> None:
    """Send for so long, then print where every datagram is: sent = stored + lost, and delivered."""
    with tempfile.TemporaryDirectory() as name:
        folder, port, endpoint = Path(name), free_port(), free_port()
        file, log = folder / "siemrelay.yaml", folder / "log"
        file.write_text(yaml.safe_dump({
            "state_dir": f"{name}/state", "self_audit": False,
            "sources": {"logs": {"type": "syslog", "listen": f"udp://127.0.0.1:{port}"}},
            "sinks": {"out": {"protocol": "file", "path": f"{name}/out", "format": "raw"}},
            "endpoint": {"listen": f"127.0.0.1:{endpoint}"},
            "log": {"format": "json"},
        }))  # fmt: skip
        file.chmod(0o600)
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "siemrelay", "run", "-c", str(file)], stderr=stderr
            )
        try:
            _until(lambda: b'"listening"' in log.read_bytes())
            before = _cpu_s(process.pid)
            sent, took_s = _send(port, seconds)
            stored, lost = _settled(endpoint, sent)
            cpu_s = _cpu_s(process.pid) - before
            _until(lambda: _metric(endpoint, "sink_delivered_total") >= stored)
            delivered = _metric(endpoint, "sink_delivered_total")
            missing = sent - stored - lost
            print(
                f"UDP, {_BYTES} bytes at {sent / took_s:,.0f}/s for {took_s:.1f} s (asked for: "
                f"{_RATE:,}/s): {sent} sent = {stored} stored + {lost} dropped by the kernel's "
                f"count + {missing} unaccounted for (bar: 0); {delivered} delivered; "
                f"{cpu_s / sent * 1e6:.1f} µs of CPU each"
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


def _settled(endpoint: int, sent: int) -> tuple[int, int]:
    """How many are stored and lost, once that is all of them or nothing changes any more."""
    with contextlib.suppress(SystemExit):  # then the difference is what is to be shown
        _until(lambda: sum(_counted(endpoint)) == sent)
    return _counted(endpoint)


def _counted(endpoint: int) -> tuple[int, int]:
    return _metric(endpoint, "source_records_total"), _metric(
        endpoint, "source_upstream_dropped_total"
    )


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {_PATIENCE_S:g} s")
        time.sleep(0.05)


def _metric(port: int, name: str) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(f"siemrelay_{name}" + "{"):
                return int(float(line.split()[-1]))
    raise OSError(f"no metric {name}")


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
