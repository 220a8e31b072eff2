"""An export of the real relay, verified with Go's libraries of signed notes and logs."""

from __future__ import annotations

import json
import os
import subprocess
from base64 import b64decode
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, append, event, until
from tests.support.seals.relay import archive, is_sealed, seal_command
from tests.support.servers import missing, program

SOURCE = Path(__file__).parents[1] / "support" / "seals" / "go_verifier" / "main.go"
LIBRARIES = Path("/usr/share/gocode")


@pytest.fixture(scope="module")
def go_verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    go = program("go", "golang-go")
    if not (LIBRARIES / "src/golang.org/x/mod/sumdb/tlog").is_dir():
        missing("golang.org/x/mod is not installed (Debian package golang-golang-x-mod-dev)")
    folder = tmp_path_factory.mktemp("go")
    environment = os.environ | {
        "GO111MODULE": "off", "GOPATH": str(LIBRARIES), "GOCACHE": str(folder / "cache"),
        "GOFLAGS": "-p=1",
    }  # fmt: skip
    subprocess.run([go, "build", "-o", folder / "verifier", SOURCE], env=environment, check=True)
    return folder / "verifier"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, dict[str, int]]:
    """The verifier's key, the export, and the last seal's root with its size."""
    folder = tmp_path_factory.mktemp("relay")
    export = folder / "out.cef"
    daemon = Daemon(folder, {"out": archive(export, format="cef", header="rfc3164")})
    try:
        append(daemon.audit, map(event, range(1, 201)))
        daemon.start()
        until(lambda: is_sealed(daemon, "out", 201))
        append(daemon.audit, map(event, range(201, 301)))
        until(lambda: is_sealed(daemon, "out", 302))
        assert daemon.terminate() == 0
    finally:
        daemon.close()
    key = seal_command(daemon, "key").stdout.strip()
    (shown,) = json.loads(seal_command(daemon, "show", "--json").stdout).values()
    return key, export.read_text(), {shown["root"]: shown["under_seal"]}


def run(go_verifier: Path, key: str, export: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([go_verifier, key], input=export, capture_output=True, text=True)


def test_go_proves_every_message_of_an_export(
    go_verifier: Path, exported: tuple[str, str, dict[str, int]]
) -> None:
    key, export, last = exported
    done = run(go_verifier, key, export)
    assert (done.returncode, done.stderr) == (0, "")
    _, size, root = done.stdout.splitlines()[-1].split()
    assert last == {b64decode(root).hex(): int(size)}
    assert int(size) == export.count("\n") - 1


@pytest.mark.parametrize(("old", "new", "why"), [
    ("number 150 was", "number 151 was", "are not those that were sent"),
    ("siemrelayN=", "siemrelayM=", "message 0 is missing"),
    ("siemrelay-seal:k", "siemrelay-seal:l", ""),
])  # fmt: skip
def test_go_refuses_an_export_that_was_changed(
    go_verifier: Path, exported: tuple[str, str, dict[str, int]], old: str, new: str, why: str
) -> None:
    key, export, _ = exported
    done = run(go_verifier, key, export.replace(old, new, 1))
    assert done.returncode == 1
    assert why in done.stderr


def test_go_refuses_the_seals_of_another_key(
    go_verifier: Path, exported: tuple[str, str, dict[str, int]]
) -> None:
    key, export, _ = exported
    done = run(go_verifier, f"{key[:-6]}AAAAA=", export)
    assert done.returncode == 1
