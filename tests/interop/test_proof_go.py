"""Seals and trees against Go's own libraries for signed notes and transparency logs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from base64 import b64encode
from pathlib import Path

import msgspec
import pytest

from siemrelay.proof.merkle import Tree, leaf_hash
from siemrelay.proof.note import Signer, sign

SOURCE = Path(__file__).parents[1] / "support" / "go_verifier" / "main.go"
LIBRARIES = Path("/usr/share/gocode")


@pytest.fixture(scope="module")
def go_verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("go") is None:
        pytest.skip("needs Go (Debian: golang-go)")
    if not (LIBRARIES / "src/golang.org/x/mod/sumdb/tlog").is_dir():
        pytest.skip("needs golang.org/x/mod (Debian: golang-golang-x-mod-dev)")
    folder = tmp_path_factory.mktemp("go")
    environment = os.environ | {
        "GO111MODULE": "off", "GOPATH": str(LIBRARIES), "GOCACHE": str(folder / "cache"),
        "GOFLAGS": "-p=1",
    }  # fmt: skip
    subprocess.run(["go", "build", "-o", folder / "verifier", SOURCE], env=environment, check=True)
    return folder / "verifier"


def test_go_verifies_the_note_the_root_and_every_leaf_and_smaller_tree(go_verifier: Path) -> None:
    signer = Signer.generate("relay.example")
    leaves = [b"event %d" % n for n in range(300)]
    tree = Tree().extended([leaf_hash(leaf) for leaf in leaves])
    root = b64encode(tree.root).decode()
    text = f"relay.example/splunk/abcdefgh22\n{tree.size}\n{root}\ntally AAAA\n"
    given = {"key": str(signer.verifier), "note": sign(text.encode(), [signer]).decode(),
             "leaves": leaves}  # fmt: skip
    done = subprocess.run(
        [go_verifier], input=msgspec.json.encode(given), capture_output=True, check=True
    )
    assert json.loads(done.stdout) == {"text": text, "root": root, "size": 300, "signed": root}


def test_go_refuses_a_note_that_was_changed(go_verifier: Path) -> None:
    signer = Signer.generate("relay.example")
    note = sign(b"relay.example/splunk/abcdefgh22\n1\n", [signer]).replace(b"\n1\n", b"\n2\n")
    given = {"key": str(signer.verifier), "note": note.decode(), "leaves": []}
    done = subprocess.run([go_verifier], input=msgspec.json.encode(given), capture_output=True)
    why = f"invalid signature for key relay.example+{signer.verifier.id.hex()}\n"
    assert (done.returncode, done.stderr.decode()) == (1, why)
