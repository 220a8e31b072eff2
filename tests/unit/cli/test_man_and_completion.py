"""What `siemrelay install` makes from the commands: man pages, and completion in real shells."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from siemrelay.cli.commands import COMMANDS, main
from siemrelay.cli.setup.completion import SHELLS, script
from siemrelay.cli.setup.man_pages import pages
from tests.support.servers import program

PAGES = pages()


def test_every_command_has_a_page_with_its_options_and_examples() -> None:
    assert set(PAGES) == {"siemrelay.1", *(f"siemrelay-{name}.1" for name in COMMANDS)}
    for name in COMMANDS:
        assert f"siemrelay\\-{name}" in PAGES["siemrelay.1"]
        for part in (".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS", ".SH SEE ALSO"):
            assert part in PAGES[f"siemrelay-{name}.1"], name
    assert ".nf\nExamples:\n  siemrelay init\n" in PAGES["siemrelay-init.1"]
    assert ".SH DEAD\\-LETTERS" in PAGES["siemrelay-buffer.1"]


def test_groff_formats_every_page_without_a_warning() -> None:
    groff = [program("groff", "groff-base"), "-man", "-ww", "-Kutf8", "-Tutf8"]
    text = "".join(PAGES.values())
    done = subprocess.run(groff, input=text, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert (
        "--against-running" in done.stdout.replace("\b", "").replace("\u2010", "-") or done.stdout
    )


def test_the_scripts_are_printed_without_their_shells() -> None:
    for shell in SHELLS:
        result = CliRunner().invoke(main, ["completion", shell], env={"PATH": ""})
        assert result.output == script(shell)
        assert f"_SIEMRELAY_COMPLETE={shell}_complete" in result.output


def completed(folder: Path, words: str) -> list[str]:
    """What bash offers for a line that ends with the last of these words."""
    command = folder / "siemrelay"
    command.write_text(f"#!{sys.executable}\nfrom siemrelay.__main__ import main\nmain()\n")
    command.chmod(0o755)
    last = words.count(" ")
    line = f"COMP_WORDS=({words}); COMP_CWORD={last}; _siemrelay_completion siemrelay"
    show = "printf '%s\\n' \"${COMPREPLY[@]}\""
    done = subprocess.run(
        ["bash", "-c", f"{script('bash')}\n{line}\n{show}"],
        capture_output=True, text=True, check=True,
        env={
            **os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(Path(__file__).parents[3]),
        },
    )  # fmt: skip
    return done.stdout.split()


def test_bash_completes_commands_and_their_options(tmp_path: Path) -> None:
    assert completed(tmp_path, "siemrelay in") == ["init", "install"]
    assert completed(tmp_path, "siemrelay buffer dead-letters --re") == ["--retry"]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("test -c FILE ", ["qradar", "splunk"]), ("pause -c FILE sp", ["splunk"]),
        ("tap -c FILE --source ", ["alm"]), ("buffer dead-letters -c FILE q", ["qradar"]),
        ("test -c /none.yaml ", []),
    ],
)  # fmt: skip
def test_bash_completes_the_names_of_the_configuration_in_use(
    tmp_path: Path, words: str, names: list[str]
) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text("include: more/*.yaml\nsources: {alm: }\nsinks: {qradar: {port: x}}\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more/splunk.yaml").write_text("sinks: {splunk: {}}\n")
    line = words.replace("FILE", str(file))
    # An empty last word, as behind a space.
    line = f"{line}''" if line.endswith(" ") else line
    assert completed(tmp_path, f"siemrelay {line}") == names


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_accept_their_scripts(shell: str, tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_text(script(shell))
    subprocess.run([program(shell, shell), "-n", str(file)], check=True)
