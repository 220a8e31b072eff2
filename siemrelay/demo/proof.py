"""`siemrelay demo --proof`: a SIEM's export is tampered with, and the very event is found."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

_EVENTS: Final = 200
_CHANGED, _DELETED = 73, 141
_NAMES: Final = ("ada", "grace", "edsger", "barbara", "donald")

_CONFIGURATION: Final = """\
state_dir: {folder}/state
sources:
  audit:
    type: file
    path: {folder}/audit.json
    start_at: beginning
sinks:
  siem:                       # stands for a SIEM: what it receives is what it exports
    protocol: file
    path: {folder}/export.json
    format: json
    seal: yes
endpoint:
  listen: off
log:
  level: warning
"""

_NUMBER: Final = re.compile(r'"n":"[a-z2-7]+:(\d+)"')


class ProofDemo:
    """The demo's steps, each reported by `say`."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder, self._say = folder, say
        self._export, self._hashes = folder / "export.json", folder / "hashes"
        self._key = ""

    def run(self) -> bool:
        """Play it; whether each change was found, and nothing else."""
        self._deliver()
        if self._verify("1. The export as it is") != 0:
            return False
        self._stream = self._said.split()[1]
        whole = self._export.read_text().splitlines(keepends=True)
        changed = self._line_of(whole, _CHANGED)
        self._export.write_text(
            "".join(whole).replace(whole[changed], whole[changed].replace('"ada"', '"eve"'))
        )
        number = _number(whole[changed])
        self._say(f"Somebody changes one event in the SIEM: who did number {number} becomes eve.\n")
        found = self._verify("2. With a changed event", with_hashes=True)
        self._export.write_text("".join(whole))
        if found != 1 or f"changed {self._stream} n={number} " not in self._said:
            return False
        deleted = self._line_of(whole, _DELETED)
        self._export.write_text("".join(whole[:deleted] + whole[deleted + 1 :]))
        number = _number(whole[deleted])
        self._say(f"Somebody deletes one event in the SIEM: number {number}.\n")
        found = self._verify("3. With a deleted event", with_hashes=True)
        return found == 1 and f"missing {self._stream} n={number} " in self._said

    def _deliver(self) -> None:
        events = (
            {"id": f"e{n}", "type": "Role Changed", "message": f"role {n % 7} was granted",
             "actor": {"name": "ada" if n == _CHANGED else _NAMES[n % 5]}}
            for n in range(_EVENTS)
        )  # fmt: skip
        audit = self._folder / "audit.json"
        audit.write_text("".join(json.dumps(event) + "\n" for event in events))
        (self._folder / "relay.yaml").write_text(_CONFIGURATION.format(folder=self._folder))
        self._say(f"A relay delivers {_EVENTS} audit events to a SIEM, with `seal: yes`:\n")
        self._command("run", "--drain", "-c", "relay.yaml")
        self._key = self._command("seal", "key", "-c", "relay.yaml").strip()
        self._command("seal", "export", "-c", "relay.yaml", "siem", str(self._hashes))
        self._say(f"The auditor has the verifier key, {self._key}, and what the SIEM exports.\n")

    def _line_of(self, lines: list[str], event: int) -> int:
        return next(i for i, line in enumerate(lines) if f'"id":"e{event}"' in line)

    def _verify(self, title: str, *, with_hashes: bool = False) -> int:
        self._say(title)
        tiles = ["--tiles", "hashes"] if with_hashes else []
        self._command("verify", "--key", self._key, *tiles, "export.json")
        self._say(self._said)
        return self._code

    def _command(self, *arguments: str) -> str:
        self._say(f"$ siemrelay {' '.join(arguments)}")
        done = subprocess.run(
            [sys.executable, "-m", "siemrelay", *arguments], cwd=self._folder,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        self._said, self._code = done.stdout, done.returncode
        return done.stdout


def run_proof_demo(say: Callable[[str], None]) -> bool:
    """Play the demo in a temporary directory, and remove it."""
    with tempfile.TemporaryDirectory(prefix="siemrelay-demo-") as folder:
        return ProofDemo(Path(folder), say).run()


def _number(line: str) -> int:
    found = _NUMBER.search(line)
    assert found is not None, line
    return int(found[1])
