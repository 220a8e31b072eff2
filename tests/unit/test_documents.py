"""The documents and the unit file say what the program does."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from siemrelay.cli.commands import COMMANDS
from siemrelay.registry import FORMATS, PROTOCOLS
from siemrelay.telemetry import metrics
from tests.support.servers import program

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
UNIT = (ROOT / "systemd/siemrelay.service").read_text()


def test_readme_names_every_metric() -> None:
    for name in metrics.names():
        part, _, rest = name.removeprefix("siemrelay_").partition("_")
        assert name in README or (f"`_{rest}`" in README and f"siemrelay_{part}_" in README), name


def test_readme_names_every_command_format_and_protocol() -> None:
    for command in COMMANDS:
        assert f"`{command}" in README, command
    for name in (*FORMATS, *PROTOCOLS):
        assert re.search(rf"\b{re.escape(name)}\b", README), name


def test_readme_opens_with_three_sentences_and_two_commands() -> None:
    opening, _, rest = README.partition("```sh")
    paragraph = opening.split("\n\n")[1]
    assert len(re.findall(r"\.(?:\s|$)", paragraph)) == 3
    assert rest.partition("```")[0].strip().endswith("siemrelay demo")
    assert "./tests/run" in rest


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that is there, since systemd looks for it."""
    path = tmp_path / "siemrelay.service"
    true = shutil.which("true")
    path.write_text(UNIT.replace("/opt/siemrelay/bin/siemrelay", str(true)))
    return path


def test_systemd_accepts_the_unit_without_a_word(unit: Path) -> None:
    analyze = program("systemd-analyze", "systemd")
    command = [analyze, "verify", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_systemd_rates_the_unit_as_little_exposed(unit: Path) -> None:
    # 0 is a service that can do nothing, 9.6 one without any hardening.
    analyze = program("systemd-analyze", "systemd")
    command = [analyze, "security", "--offline=yes", "--threshold=20", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-300:]


def test_unit_does_not_restart_on_faults_that_a_restart_cannot_mend() -> None:
    assert "RestartPreventExitStatus=78" in UNIT
    assert "Type=notify" in UNIT
    assert "WatchdogSec=" in UNIT
    assert "LoadCredential=siemrelay.yaml:" in UNIT
