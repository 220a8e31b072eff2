"""What open and idle connections cost a syslog listener in memory."""

from __future__ import annotations

import ssl
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import trustme
import yaml

from tests.bench.daemon import connected
from tests.support.servers import free_port

_CONNECTIONS: Final = 1000
_BAR_BYTES: Final = 60_000_000
_PATIENCE_S: Final = 30.0


def run() -> None:
    """Print the RSS before and with a thousand connections each of which has sent one message."""
    _measure("tcp", bar=_BAR_BYTES)
    _measure("tls", bar=None)


def _measure(scheme: str, bar: int | None) -> None:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        port, file, server = free_port(), Path(name) / "siemrelay.yaml", Path(name) / "server.pem"
        authority = trustme.CA()
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(server))
        client = ssl.create_default_context()
        authority.configure_trust(client)
        file.write_text(yaml.safe_dump({
            "state_dir": f"{name}/state", "self_audit": False,
            "sources": {"logs": {
                "type": "syslog", "listen": f"{scheme}://127.0.0.1:{port}",
                **({"tls": {"certificate": str(server)}} if scheme == "tls" else {}),
            }},
            "sinks": {"out": {"protocol": "file", "path": f"{name}/out", "format": "raw"}},
            "endpoint": {"listen": "off"},
        }))  # fmt: skip
        file.chmod(0o600)
        with (Path(name) / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "siemrelay", "run", "-c", str(file)], stderr=log
            )
        stack.callback(process.wait, 20)
        stack.callback(process.terminate)

        def say(message: bytes) -> None:
            sock = connected(port)
            if scheme == "tls":
                sock = client.wrap_socket(sock, server_hostname="localhost")
            stack.enter_context(sock).sendall(message)

        say(b"<13>first\n")
        _arrived(Path(name) / "out", 1)
        before = _rss_bytes(process.pid)
        for _ in range(_CONNECTIONS):
            say(b"<13>hello\n")
        _arrived(Path(name) / "out", _CONNECTIONS + 1)
        more = _rss_bytes(process.pid) - before
        verdict = ""
        if bar is not None:
            verdict = f" ({'within' if more <= bar else 'OVER'} the bar of {bar / 1e6:.0f})"
        print(f"{_CONNECTIONS} open {scheme} connections: {more / 1e6:.1f} MB RSS{verdict} "
              f"over {before / 1e6:.1f} with one")  # fmt: skip


def _arrived(out: Path, count: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not out.exists() or len(out.read_bytes().splitlines()) < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"not {count} messages within {_PATIENCE_S:g} s")
        time.sleep(0.05)


def _rss_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024
