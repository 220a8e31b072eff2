"""A mistake on the command line is answered with what happened, where, and what to type instead."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from siemrelay.cli.commands import main
from siemrelay.config import files


@pytest.mark.parametrize(
    ("arguments", "exit_code", "answer"),
    [
        ("chekc", 2, "No such command 'chekc'; did you mean `check`?"),
        ("validate", 2, "No such command 'validate'; did you mean `check`?"),
        ("replay web", 2, "No such command 'replay'; did you mean `buffer replay`?"),
        ("-c a.yaml run", 2, "No such option '-c' here: it stands behind the command, as in `main "
         "run -c FILE`"),
        ("buffer --config a.yaml info", 2, "No such option '--config' here: it stands behind"),
        ("-q", 2, "No such option '-q'."),
        ("check relay.yaml", 2,
         "Got unexpected extra argument (relay.yaml); a configuration is named with -c FILE"),
        ("check -c a.yaml -c b.yaml", 2,
         "given 2 times (a.yaml, b.yaml); one file is the whole configuration"),
        ("check -c nowhere.yaml", 78,
         "nowhere.yaml: no such file; name the configuration with -c FILE"),
        ("events -c nowhere.yaml", 78,
         "nowhere.yaml: no such file; name the configuration with -c FILE"),
        ("reload -c .", 78, ".: is a directory; name the file in it with -c FILE"),
        ("run --pol x", 2, "No such option '--pol'"),
    ],
)  # fmt: skip
def test_a_mistake_on_the_command_line_is_answered_with_what_to_type(
    arguments: str, exit_code: int, answer: str
) -> None:
    result = CliRunner().invoke(main, arguments.split())
    assert (result.exit_code, answer in result.output) == (exit_code, True), result.output


def test_a_file_that_this_user_may_not_read_is_answered_with_who_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "siemrelay.yaml"
    file.write_text("sources: {}\n")

    def refused(file: str, mode: str) -> None:  # root reads everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "open", refused, raising=False)
    result = CliRunner().invoke(main, ["check", "-c", str(file)])
    assert result.exit_code == 78
    assert "may not read it; run as root or as the service's user" in result.output
