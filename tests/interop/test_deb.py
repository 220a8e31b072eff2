"""The Debian package: built by its script, taken apart by dpkg, judged by lintian."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from siemrelay import __version__
from tests.support.servers import program

ROOT = Path(__file__).parents[2]


def run(*command: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=cwd,
        # Python finds the package's own modules and no others.
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_package_holds_a_relay_that_runs_and_lintian_has_nothing_to_say(tmp_path: Path) -> None:
    program("dpkg-deb", "dpkg")
    (line,) = run("systemd/build-deb", str(tmp_path)).splitlines()[-1:]
    package = Path(line)
    assert package.name.startswith(f"siemrelay_{__version__}_")
    root = tmp_path / "root"
    run("dpkg-deb", "-x", str(package), str(root))
    python = root / "opt/siemrelay/bin/python3"
    assert run(str(python), "-m", "siemrelay", "--version").endswith(f" {__version__}\n")
    assert (root / "opt/siemrelay/bin/siemrelay").read_text().startswith(
        "#!/opt/siemrelay/bin/python3\n"
    )  # fmt: skip
    unit = (root / "usr/lib/systemd/system/siemrelay.service").read_text()
    assert unit == (ROOT / "systemd/siemrelay.service").read_text()
    assert (root / "usr/bin/siemrelay").readlink() == Path("/opt/siemrelay/bin/siemrelay")
    outside = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
    assert [
        name for name in outside if re.match(r"(var|etc/(?!siemrelay/environment))", name)
    ] == []
    control = tmp_path / "control"
    run("dpkg-deb", "-e", str(package), str(control))
    assert (control / "conffiles").read_text() == "/etc/siemrelay/environment\n"
    for script in ("postinst", "prerm", "postrm"):
        run("sh", "-n", str(control / script))
    if shutil.which("lintian"):
        run("lintian", "--fail-on", "error,warning", "--allow-root", str(package))
