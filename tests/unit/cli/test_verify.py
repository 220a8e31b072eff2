"""`siemrelay verify` on files that it cannot read or write: one sentence, and exit 2."""

from __future__ import annotations

import gzip
from pathlib import Path

from click.testing import CliRunner

from siemrelay.cli.verify import verify
from tests.support.sealed import SIGNER, sealed

KEY = str(SIGNER.verifier)


def test_a_damaged_gzip_file_is_named(tmp_path: Path) -> None:
    export = tmp_path / "export.json.gz"
    packed = bytearray(gzip.compress(b"\n".join(sealed(30).lines)))
    packed[2000:2300] = bytes(byte ^ 0x55 for byte in packed[2000:2300])
    export.write_bytes(packed)
    result = CliRunner().invoke(verify, ["--key", KEY, str(export)])
    assert result.exit_code == 2
    assert f"cannot read {export}" in result.output


def test_a_page_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    export, page = tmp_path / "export.json", tmp_path / "no-folder" / "page.html"
    export.write_bytes(b"\n".join(sealed().lines))
    result = CliRunner().invoke(verify, ["--key", KEY, "--html", str(page), str(export)])
    assert result.exit_code == 2
    assert f"cannot write {page}" in result.output
