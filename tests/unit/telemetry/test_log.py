"""The relay's log as it comes out of a real process: lines, levels, and what never leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from siemrelay.telemetry.log import Redactor

SECRET = 'hunter2-very"secret'

_PROGRAM = """
import sys
from pathlib import Path
import structlog
from siemrelay.telemetry.log import Redactor, configure

secret = sys.argv[3]
configure(sys.argv[1], sys.argv[2], Redactor([secret, "abc"]))
log = structlog.get_logger()
log.debug("a debug line")
log.info("plain", n=1, ok=True, nothing=None, where=Path("/x"), short="abc")
deep = {"a": [{secret: (secret, b"bytes " + secret.encode())}]}
log.warning("told " + secret, text=secret, deep=deep,
            error=ValueError(secret), many={secret})
def fail(token):
    raise ValueError("no access with " + token)
try:
    fail(secret)
except ValueError as error:
    log.error("part failed", exc_info=error)
"""


def logged(level: str, form: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _PROGRAM, level, form, SECRET],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == ""
    return done.stderr


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in logged("info", "json").splitlines()]


def test_each_line_is_one_json_object_with_its_level_and_time(lines: list[dict[str, Any]]) -> None:
    assert [line["level"] for line in lines] == ["info", "warning", "error"]
    assert all(line["timestamp"].endswith("Z") for line in lines)
    assert lines[0] | {"timestamp": ""} == {
        "event": "plain", "n": 1, "ok": True, "nothing": None, "where": "/x", "short": "abc",
        "level": "info", "timestamp": "",
    }  # fmt: skip


def test_secrets_are_blotted_out_at_any_depth(lines: list[dict[str, Any]]) -> None:
    warning = lines[1]
    assert warning["event"] == "told ***"
    assert warning["text"] == warning["error"] == "***"
    assert warning["deep"] == {"a": [{"***": ["***", "b'bytes ***'"]}]}
    assert warning["many"] == ["***"]


def test_a_traceback_is_logged_without_the_secrets_in_it(lines: list[dict[str, Any]]) -> None:
    assert "in fail" in lines[2]["exception"]
    assert "no access with ***" in lines[2]["exception"]


@pytest.mark.parametrize("form", ["json", "console", "auto"])
@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_no_form_lets_a_secret_out_and_levels_are_kept(form: str, level: str) -> None:
    out = logged(level, form)
    assert "hunter2" not in out
    assert "part failed" in out
    assert ("told ***" in out) == (level != "error")
    assert ("plain" in out) == (level in ("debug", "info"))
    assert ("a debug line" in out) == (level == "debug")


def test_without_a_terminal_auto_is_json() -> None:
    assert all(line.startswith("{") for line in logged("info", "auto").splitlines())


def test_the_longest_secret_goes_first() -> None:
    assert Redactor(["secret", "secret-and-more"]).text("a secret-and-more b") == "a *** b"


def test_secrets_too_short_to_protect_anything_blot_out_nothing() -> None:
    assert Redactor(["", "a", "abc"]).text("abc a") == "abc a"


def test_a_line_without_secrets_is_left_as_it_is() -> None:
    line = {"event": Path("x")}
    assert Redactor([])(None, "info", line) == line


def test_the_journal_gets_the_priority_of_each_line(tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w+") as stream:
        place = os.fstat(stream.fileno())
        subprocess.run(
            [sys.executable, "-W", "error", "-c", _PROGRAM, "debug", "auto", SECRET],
            stderr=stream, check=True, timeout=60,
            env={**os.environ, "JOURNAL_STREAM": f"{place.st_dev}:{place.st_ino}"},
        )  # fmt: skip
        stream.seek(0)
        lines = stream.read().splitlines()
    assert [line[:3] for line in lines] == ["<7>", "<6>", "<4>", "<3>"]
    assert [json.loads(line[3:])["level"] for line in lines] == [
        "debug", "info", "warning", "error",
    ]  # fmt: skip


def test_a_pipe_behind_the_journals_stream_gets_plain_json(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")  # inherited: this error output is another one
    assert logged("info", "json").startswith("{")
