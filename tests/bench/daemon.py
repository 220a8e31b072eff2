"""The daemon under a benchmark: a configuration, a process, and what the kernel accounts for it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

_LOOK_S: Final = 0.002
_PATIENCE_S: Final = 300
_START_S: Final = 30.0
# Debian's rsyslogd is not on a user's PATH.
_PATH: Final = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


class Arrived(NamedTuple):
    """Wall and CPU seconds from the first event that arrived to the last, and peak MB."""

    seconds: float
    cpu_s: float
    peak_mb: float


@dataclass
class Counter:
    """Counts lines on one TCP port, in a thread; times are of the monotonic clock."""

    wanted: int
    count: int = 0
    arrivals: list[float] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)
    each: bool = False
    reads: bool = True

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        if not self.reads:
            self._kept = connection  # open for as long as this counter is
            return
        with connection:
            buffer = bytearray(1 << 20)
            while size := connection.recv_into(buffer):
                now, lines = time.monotonic(), buffer.count(b"\n", 0, size)
                self.count += lines
                if self.each or not self.arrivals:
                    self.arrivals += [now] * lines
                if self.count >= self.wanted:
                    self.arrivals.append(now)
                    self.done.set()


@contextlib.contextmanager
def daemon(folder: Path, port: int, events: Any, **top: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run the relay on the folder's *.ndjson towards a TCP port on this machine, as CEF."""
    sink = {
        "protocol": "tcp", "server": "127.0.0.1", "port": port, "format": "cef", "header": "none",
        "events": events,
    }  # fmt: skip
    with run_configuration(folder, {"siem": sink}, **top) as process:
        yield process


@contextlib.contextmanager
def run_configuration(
    folder: Path, sinks: dict[str, Any], **top: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the relay on the folder's *.ndjson towards these sinks."""
    source = {"type": "file", "path": f"{folder}/*.ndjson", "product": "alm"}
    with run_settings(folder, source, sinks, **top) as process:
        yield process


@contextlib.contextmanager
def run_settings(
    folder: Path, source: dict[str, Any], sinks: dict[str, Any], **top: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the relay with one source, towards these sinks."""
    settings = {
        "state_dir": str(folder / "state"),
        "self_audit": False,
        "sources": {"audit": source},
        "sinks": sinks,
        "endpoint": {"listen": "off"},
        "log": {"level": "error", "format": "json"},
        "shutdown_timeout": "1s",
        **top,
    }
    config = folder / "siemrelay.yaml"
    config.write_text(yaml.safe_dump(settings))
    with running(sys.executable, "-m", "siemrelay", "run", "-c", str(config)) as process:
        yield process


@contextlib.contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the end of the block, without its messages."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def rsyslogd() -> str | None:
    """Where rsyslog's program is; None if it is not installed."""
    return shutil.which("rsyslogd", path=_PATH)


@contextlib.contextmanager
def rsyslog(folder: Path, settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run rsyslog, which is installed, with these settings."""
    config, program = folder / "rsyslog.conf", rsyslogd()
    config.write_text(settings)
    assert program is not None
    with running(program, "-n", "-iNONE", "-f", str(config)) as process:
        yield process


def connected(port: int) -> socket.socket:
    """A connection to a program that is about to listen there."""
    deadline = time.monotonic() + _START_S
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=_START_S)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def until_all_arrived(process: subprocess.Popen[bytes], receivers: Sequence[Counter]) -> Arrived:
    """Wait for every event of every receiver; what it took from the first event that arrived."""
    while not any(receiver.arrivals for receiver in receivers):
        time.sleep(_LOOK_S)
    at_first, _ = usage(process.pid)
    for receiver in receivers:
        if not receiver.done.wait(_PATIENCE_S):
            raise SystemExit(f"only {receiver.count} of {receiver.wanted} events arrived")
    at_last, peak_mb = usage(process.pid)
    first = min(receiver.arrivals[0] for receiver in receivers)
    last = max(receiver.arrivals[-1] for receiver in receivers)
    return Arrived(last - first, at_last - at_first, peak_mb)


def usage(pid: int) -> tuple[float, float]:
    """CPU seconds so far and the peak resident size in MB of a live process with its workers."""
    workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    # What has ended counts for its parent.
    own = _usage(pid, ended=True)
    each = [own, *(_usage(int(worker)) for worker in workers)]
    return sum(cpu_s for cpu_s, _ in each), sum(peak_mb for _, peak_mb in each)


def _usage(pid: int, *, ended: bool = False) -> tuple[float, float]:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = sum(map(int, fields[11 : 15 if ended else 13]))
    status = Path(f"/proc/{pid}/status").read_text()
    peak_kib = int(status.partition("VmHWM:")[2].split()[0])
    return ticks / os.sysconf("SC_CLK_TCK"), peak_kib * 1024 / 1e6
