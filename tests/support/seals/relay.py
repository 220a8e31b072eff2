"""A relay with sinks under `seal:`, and an auditor who has its verifier key and exports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.conftest import MakeDaemon
from tests.support import launcher
from tests.support.daemon import Daemon, append, event, until
from tests.support.seals.stream import SIGNER

SEAL = {"seal": {"every": "1s"}}


def archive(path: Path, **settings: Any) -> dict[str, Any]:
    """A sink that writes to a file, under seals."""
    return {"protocol": "file", "path": str(path), "format": "json", **SEAL, **settings}


def seal_with_key(folder: Path) -> dict[str, Any]:
    """The option `seal` with the key of `SIGNER`, from a file in that folder."""
    key = folder / "key"
    key.write_text(SIGNER.written() + "\n")
    key.chmod(0o600)
    return {"every": "1s", "key": f"${{file:{key}}}"}


def seal_command(daemon: Daemon, name: str, *options: str) -> Any:
    """Run a command of `siemrelay seal` on the relay's configuration."""
    return launcher.run("seal", name, "-c", str(daemon.file), *options)


class Auditor:
    """Has the relay's verifier key, and gets exports."""

    def __init__(self, daemon: Daemon) -> None:
        self.key = seal_command(daemon, "key").stdout.strip()

    def verify(self, *exports: Path, code: int = 0, **options: str) -> dict[str, Any]:
        """The report as JSON; `code` is the exit code that it must have."""
        more = [
            word
            for name, value in options.items()
            for word in (f"--{name.replace('_', '-')}", value)
        ]
        keys = [word for key in self.key.splitlines() for word in ("--key", key)]
        done = launcher.run("verify", *keys, "--json", *more, *map(str, exports))
        assert (done.returncode, done.stderr) == (code, ""), done
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def found(self, *exports: Path, **options: str) -> set[tuple[str, int, int]]:
        """What is wrong: kind, first and last number."""
        findings = self.verify(*exports, code=1, **options)["findings"]
        return {(f["kind"], f.get("first"), f.get("last")) for f in findings}


def sealed_events(path: Path) -> int:
    """The events of the source in an export."""
    return path.read_text().count('"id":"n0') if path.exists() else 0


def is_sealed(daemon: Daemon, sink: str, messages: int) -> bool:
    """Whether so many messages of the sink are under seal."""
    sinks = {found["name"]: found for found in json.loads(daemon.get("/status")[1])["sinks"]}
    seal = sinks[sink]["seal"]
    return seal is not None and bool(seal["sealed_messages"] >= messages)


def sealed_messages(path: Path) -> int:
    """How many messages the last seal in a file covers."""
    found = re.findall(r"sealed (\d+) messages of", path.read_text() if path.exists() else "")
    return max(map(int, found), default=0)


def write_export(path: Path, messages: Iterable[bytes]) -> Path:
    """The path of a file with these messages, one a line."""
    path.write_bytes(b"".join(message + b"\n" for message in messages))
    return path


def started_with_ten(make_daemon: MakeDaemon, export: Path, *, sealed: bool = True) -> Daemon:
    """A running relay with ten events in the file of its sink `out`; `sealed`: under a seal."""
    daemon = make_daemon({"out": archive(export)})
    append(daemon.audit, map(event, range(1, 11)))
    daemon.start()
    until(lambda: sealed_messages(export) >= 11 if sealed else sealed_events(export) == 10)
    return daemon
