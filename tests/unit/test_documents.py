"""The documents and the unit file match the program: paths, commands, keys, metrics, exit codes."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

from siemrelay.cli.commands import COMMANDS
from siemrelay.core.event_types import BUILT_IN, SEAL, TEST
from siemrelay.registry import FORMATS, PROTOCOLS, SOURCES
from siemrelay.telemetry import metrics
from tests.support.documents import without_endpoint
from tests.support.servers import program

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not {".venv", ".git", ".pytest_cache", "node_modules"} & set(path.relative_to(ROOT).parts)
)
UNIT = (ROOT / "systemd/siemrelay.service").read_text()

EXITS = ("SystemExit", "sys.exit", "refuse")

# Folders whose files a document names by path.
FOLDERS = ("siemrelay", "config", "systemd", "tests")


def document(name: str) -> str:
    return (ROOT / name).read_text()


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


# -- what a document names exists ------------------------------------------


@pytest.mark.parametrize("path", DOCUMENTS, ids=names(DOCUMENTS))
def test_every_path_and_link_in_a_document_exists(path: Path) -> None:
    text = path.read_text()
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
    assert [to for to in links if "://" not in to and not (path.parent / to).exists()] == []
    quoted = re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", text)
    named = [name for name in quoted if "NAME" not in name]
    missing = [name for name in named if not any(place.exists() for place in places(path, name))]
    assert missing == []


def places(document: Path, name: str) -> Iterator[Path]:
    """Where a path in a document may be: from the top, beside the document, in the package."""
    for folder in (ROOT, document.parent, ROOT / "siemrelay", ROOT / "tests"):
        yield folder / name
    ours = (*FOLDERS, *(place.name for place in (ROOT / "siemrelay").iterdir()))
    if not name.startswith(ours):
        yield ROOT  # a path on the user's machine


@pytest.mark.parametrize("path", DOCUMENTS, ids=names(DOCUMENTS))
def test_every_link_to_a_heading_leads_to_one(path: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", path.read_text()):
        text = (path.parent / target if target else path).read_text()
        headings = re.findall(r"(?m)^#+ (.*)$", text)
        assert anchor in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings]


def command_named(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that these words call, and the words after its name."""
    assert words[0] in COMMANDS, words
    module, _ = COMMANDS[words[0]]
    command: click.Command = getattr(import_module(f"siemrelay.cli.{module}"), words[0])
    words = words[1:]
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize("path", DOCUMENTS, ids=names(DOCUMENTS))
def test_every_command_in_a_document_exists_with_its_options(path: Path) -> None:
    text = path.read_text()
    for line in re.findall(r"(?:^|[`/ ])siemrelay ([a-z][^`#\n|&;]*)", text, re.MULTILINE):
        words = line.split()
        if words[0] not in COMMANDS and f"`siemrelay {line}" not in text:
            continue  # prose: "siemrelay reads ..."
        command, rest = command_named(words)
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("-")} <= known | {"--help"}, line


def test_every_metric_in_a_document_exists_and_the_list_of_metrics_is_current() -> None:
    assert document("systemd/metrics.md") == metrics.document(), (
        "run: python -m siemrelay.telemetry.metrics > systemd/metrics.md"
    )
    known = set(re.findall(r"`(siemrelay_\w+)`", metrics.document()))
    for path in DOCUMENTS:
        if path.name == "CHANGELOG.md":  # it names what is gone, too
            continue
        found = set(re.findall(r"\bsiemrelay_[a-z_]+\b", path.read_text()))
        assert found <= known, path


def test_every_exit_code_of_the_commands_is_documented() -> None:
    used = {0, 2}  # an orderly end, and click's answer to wrong usage
    for path in (ROOT / "siemrelay/cli").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr.startswith("EX_"):
                used.add(getattr(os, node.attr))
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in EXITS:
                used |= {n.value for n in ast.walk(node)
                         if isinstance(n, ast.Constant) and isinstance(n.value, int)}  # fmt: skip
    rows = re.findall(r"(?m)^\| ([\d, ]+) \|", document("systemd/README.md"))
    documented = {int(code) for row in rows for code in row.split(",")}
    assert used - {True, False} <= documented | {1}
    assert documented <= used | {64, 130}


def test_every_format_protocol_and_source_is_in_the_guide() -> None:
    guide = document("config/README.md")
    missing = [name for name in (*FORMATS, *PROTOCOLS, *SOURCES) if f"`{name}`" not in guide]
    assert missing == []


def test_every_event_of_the_relay_itself_is_in_the_guide() -> None:
    _, _, section = document("systemd/README.md").partition("\n## The relay's own events\n")
    named = set(re.findall(r"\*([A-Z][A-Za-z ]+)\*", section.partition("\n## ")[0]))
    own = {known.name for known in BUILT_IN if known.category == "relay"}
    assert named == own - {TEST, SEAL}, "`test` and `seal:` have chapters of their own"


# -- the front page --------------------------------------------------------


def test_the_front_page_is_short_and_begins_with_three_sentences_and_one_command() -> None:
    readme = document("README.md")
    assert len(readme.splitlines()) <= 140
    opening, _, rest = readme.partition("```sh")
    paragraph = opening.split("\n\n")[1]
    assert len(re.findall(r"\.(?:\s|$)", paragraph)) == 3
    command = rest.partition("```")[0].strip()
    assert command.startswith("sudo apt-get update && ")
    assert command.endswith("siemrelay demo")
    for name in COMMANDS:
        assert f"`{name}`" in readme or f"siemrelay {name}" in readme, name


def test_the_first_relay_of_the_front_page_prints_the_event_that_it_shows(tmp_path: Path) -> None:
    _, _, rest = document("README.md").partition("A first relay of your own")
    commands, shown = re.findall(r"```sh\n(.*?)```.*?`(\{.*?\})`", rest, re.S)[0]
    program_here = f'siemrelay() {{ "{sys.executable}" -m siemrelay "$@"; }}\n'
    done = subprocess.run(
        ["sh", "-euc", program_here + without_endpoint(commands)],
        cwd=tmp_path, capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    pieces = map(re.escape, shown.split("…"))
    assert re.fullmatch(".*".join(pieces) + "\n", done.stdout), done.stdout


def test_ci_runs_the_command_that_the_front_page_gives() -> None:
    assert "\n./tests/run\n" in document("README.md")
    assert "exec ./tests/run\n" in document(".ci/run")


# -- the unit --------------------------------------------------------------


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that exists, since systemd looks for it."""
    path = tmp_path / "siemrelay.service"
    true = shutil.which("true")
    path.write_text(UNIT.replace("/opt/siemrelay/bin/siemrelay", str(true)))
    return path


def test_systemd_accepts_the_unit_without_a_warning(unit: Path) -> None:
    analyze = program("systemd-analyze", "systemd")
    command = [analyze, "verify", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # It also looks at the units of other packages, and warns of theirs.
    others = "/lib/systemd/", "/usr/lib/systemd/"
    lines = (done.stdout + done.stderr).splitlines()
    assert (done.returncode, [x for x in lines if not x.startswith(others)]) == (0, [])


def test_systemd_rates_the_unit_as_little_exposed(unit: Path) -> None:
    # 0 is a service that can do nothing, 9.6 one without any hardening.
    analyze = program("systemd-analyze", "systemd")
    command = [analyze, "security", "--offline=yes", "--threshold=13", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-300:]


def test_the_unit_does_not_restart_on_faults_that_a_restart_cannot_fix() -> None:
    assert "RestartPreventExitStatus=78" in UNIT
    assert "Type=notify" in UNIT
    assert "WatchdogSec=" in UNIT
    assert "ExecReload=/opt/siemrelay/bin/siemrelay reload" in UNIT
