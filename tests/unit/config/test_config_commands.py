"""`siemrelay check` and `siemrelay events`: exit codes, plain and JSON output, terminals."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from siemrelay.cli.check import check
from siemrelay.cli.commands import main
from siemrelay.cli.events import events
from siemrelay.core.event_types import ANY
from siemrelay.products.product import BUILT_IN

GOOD = """\
sources:
  audit: {type: file, path: /nowhere/*.json}
sinks:
  s: {url: 'https://a/', authorization: Bearer abcdefg, enabled: no}
event_types: {Door Opened: {severity: 7}}
endpoint: {listen: off}  # a relay of this machine may have its port
"""


@pytest.fixture
def good(tmp_path: Path) -> str:
    file = tmp_path / "good.yaml"
    file.write_text(GOOD)
    file.chmod(0o600)
    return str(file)


@pytest.fixture
def bad(tmp_path: Path) -> str:
    file = tmp_path / "bad.yaml"
    file.write_text("sources:\n  a: {type: fil}\nsinks:\n  s: {server: a, prot: 1}\n")
    return str(file)


def test_check_prints_effective_settings_plainly_in_a_pipe(good: str) -> None:
    result = CliRunner().invoke(check, ["-c", good])
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["protocol", "http", "default"] in lines
    assert ["authorization", "***", "file"] in lines
    assert "abcdefg" not in result.output
    assert result.stdout.isascii()
    assert "\x1b" not in result.output
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert [":2:" in warnings[0], ":4:" in warnings[1], len(warnings)] == [True, True, 2]


def test_check_shows_defaults_only_on_request(good: str) -> None:
    short, whole = (
        CliRunner().invoke(check, ["-c", good, *more]).stdout for more in ([], ["--all"])
    )
    for line in ("path", "protocol", "state_dir", "authorization"):
        assert re.search(rf"^{line} ", short, re.M)
    for line in ("max_time_past", "buffer.keep_removed", "retry.max"):
        assert re.search(rf"^{line} ", whole, re.M)
        assert not re.search(rf"^{line} ", short, re.M)
    hidden = whole.count("\n") - short.count("\n") + 2  # its own line and the empty one below
    assert f"{hidden} other settings are at their defaults: --all shows them" in short


def test_check_as_json_is_whole(good: str) -> None:
    result = CliRunner().invoke(check, ["-c", good, "--json"])
    shown = json.loads(result.stdout)
    assert shown["faults"] == []
    assert shown["sinks"]["s"]["batch.max_events"] == {"value": 2000, "from": "default"}
    assert shown["sinks"]["s"]["enabled"] == {"value": False, "from": "file"}
    assert [warning["key"] for warning in shown["warnings"]] == [
        "sources.audit.path",
        "sinks.s.enabled",
    ]


def test_check_prints_every_fault_and_exits_with_78(bad: str) -> None:
    result = CliRunner().invoke(check, ["-c", bad])
    assert result.exit_code == os.EX_CONFIG == 78
    assert result.stdout == ""
    first, second, summary = result.stderr.splitlines()
    assert first.startswith(f"{bad}:2:13: sources.a.type: ")
    assert second.startswith(f"{bad}:4:18: sinks.s.prot: ")
    assert summary.startswith("2 faults")


def test_check_tells_faults_as_json(bad: str) -> None:
    result = CliRunner().invoke(check, ["-c", bad, "--json"])
    assert result.exit_code == 78
    assert [fault["line"] for fault in json.loads(result.stdout)["faults"]] == [2, 4]


def test_check_of_a_missing_file_exits_with_78() -> None:
    result = CliRunner().invoke(check, ["-c", "/nowhere/at/all.yaml"])
    assert result.exit_code == 78
    assert "/nowhere/at/all.yaml: no such file" in result.stderr


def test_events_lists_the_catalogue_and_what_a_file_declares(good: str, bad: str) -> None:
    plain = CliRunner().invoke(events, [])
    assert plain.exit_code == 0
    assert len(plain.stdout.splitlines()) == len(BUILT_IN.catalogue(BUILT_IN).types) + 1
    assert ANY in plain.stdout
    okta = CliRunner().invoke(events, ["--product", "okta"])
    assert len(okta.stdout.splitlines()) == len(BUILT_IN["okta"].types) + 1
    assert CliRunner().invoke(events, ["--product", "octa"]).exit_code == 2
    assert "Door Opened" not in plain.stdout
    declared = json.loads(CliRunner().invoke(events, ["-c", good, "--json"]).stdout)
    assert [known["severity"] for known in declared if known["name"] == "Door Opened"] == [7]
    assert CliRunner().invoke(events, ["-c", bad]).exit_code == 78


def test_help_has_an_example() -> None:
    for command, name in ((check, "check"), (events, "events")):
        assert f"siemrelay {name}" in CliRunner().invoke(command, ["--help"]).stdout


def test_terminal_gets_drawn_tables(good: str) -> None:
    ours, theirs = pty.openpty()
    script = "from siemrelay.cli.check import check; check()"
    process = subprocess.Popen(
        [sys.executable, "-c", script, "-c", good], stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 65536):
            shown += data
    except OSError:
        pass  # EIO: Linux's way of saying that the other side of a terminal is closed
    finally:
        os.close(ours)
    assert process.wait() == 0
    assert "│ authorization" in shown.decode()


OTHERS = """\
sources:
  audit: {type: file, path: /nowhere/*.json}
  hooks: {type: http, listen: "http://127.0.0.1:1/", authorization: "Bearer ${credential:hook}"}
sinks:
  mine: {protocol: stdout, format: json}
  splunk: {siem: splunk, url: "https://a:8088", authorization: "Splunk ${credential:token}"}
  other: {protocol: tcp, server: a, port: "${PORT}"}
"""


@pytest.mark.parametrize("arguments", [("test", "mine"), ("preview", "--sink", "mine")])
def test_a_command_for_one_sink_needs_no_secret_of_another(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text(OTHERS)
    name, *rest = arguments
    result = CliRunner().invoke(main, [name, "-c", str(file), *rest], input='{"type": "x"}\n')
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arguments", "ending"),
    [
        (("check",), "1 fault"),
        (("preview",), "1 fault; nothing is shown"),
        (("test", "splunk"), "1 fault; nothing was sent"),
        (("run",), "3 faults; the relay does not start"),
    ],
)
def test_a_command_says_what_it_does_not_do_because_of_a_fault(
    tmp_path: Path, arguments: tuple[str, ...], ending: str
) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text(OTHERS)
    name, *rest = arguments
    result = CliRunner().invoke(main, [name, "-c", str(file), *rest])
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (os.EX_CONFIG, ending)


def test_preview_says_how_records_without_a_type_get_one(good: str) -> None:
    result = CliRunner().invoke(main, ["preview", "-c", good], input='{"kind": "x"}\n')
    assert "1 of these records name no type" in result.stderr
    assert "`product:`" in result.stderr
    assert "`fields: {type: event.name}`" in result.stderr


def test_preview_of_nothing_says_that_there_is_no_record(good: str, tmp_path: Path) -> None:
    (tmp_path / "rotated.json").touch()
    result = CliRunner().invoke(main, ["preview", "-c", good, str(tmp_path / "rotated.json")])
    assert result.stderr == f"warning: no record in {tmp_path / 'rotated.json'}\n"
