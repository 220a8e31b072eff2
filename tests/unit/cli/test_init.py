"""`siemrelay init`: the first configuration for every SIEM, without a secret, never over a file."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner, Result

from siemrelay.cli.check import check
from siemrelay.cli.setup.init import init
from siemrelay.config.json_schema import document
from siemrelay.config.load import load, load_text
from siemrelay.config.presets import PRESETS
from siemrelay.config.yaml_document import parse

VALIDATOR = jsonschema.Draft7Validator(document())

ADDRESSES = {
    "splunk": "--url https://splunk:8088",
    "elastic": "--url https://elastic:9200",
    "opensearch": "--url https://opensearch:9200",
    "sentinel": "--url https://a-b1.westeurope-1.ingest.monitor.azure.com --set tenant=t "
    "--set rule=dcr-000a00a000a00000a000000aa000a0aa --set stream=Custom-A_CL --set client_id=c",
    "sumologic": "--url https://collectors.sumologic.com/receiver/v1/http/",
    "datadog": "",
    "chronicle": "--url https://eu-chronicle.googleapis.com/f:importPushLogs",
    "otlp": "--url http://collector:4318",
}


def invoked(*arguments: str) -> Result:
    return CliRunner().invoke(init, arguments)


@pytest.mark.parametrize("siem", PRESETS)
def test_the_file_for_every_siem_passes_check_once_its_secrets_are_there(
    siem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "siemrelay.yaml"
    address = shlex.split(ADDRESSES.get(siem, "--server siem.example.com"))
    (tmp_path / "audit.json").touch()
    result = invoked("-c", str(file), "--siem", siem, "--source", f"{tmp_path}/audit.json",
                     *address)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert f"siemrelay check -c {file}" in result.output
    text = file.read_text()
    assert VALIDATOR.is_valid(parse(text).value)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    checked = CliRunner().invoke(check, ["-c", str(file)])
    assert checked.exit_code == 0, checked.output
    for name in re.findall(r"(?m)^ +\w.*\$\{credential:(\w+)\}", text):
        assert f"cat > {name})" in result.output  # says how to store it
        (tmp_path / name).write_text("not-really\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    checked = CliRunner().invoke(check, ["-c", str(file)])
    assert (checked.exit_code, "sinks." in checked.stderr) == (0, False), checked.stderr
    assert load(file).config.sinks[siem].siem == siem


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("/var/log/alm/audit*.json", "file"), ("udp://0.0.0.0:5514", "syslog"),
        ("unix:///run/siemrelay/log.sock", "syslog"), ("tls://0.0.0.0:6514", "syslog"),
        ("http://127.0.0.1:8080/events", "http"), ("journal", "journal"), ("stdin", "stdin"),
    ],
)  # fmt: skip
def test_a_source_is_a_path_or_an_address_or_the_journal(source: str, kind: str) -> None:
    result = invoked("-c", "-", "--siem", "qradar", "--server", "q", "--source", source)
    assert result.exit_code == 0, result.output
    config = load_text(result.output, "x.yaml", need_credentials=False).config
    assert config.sources["audit"].type == kind


def test_a_single_file_is_followed_with_its_rotated_ones() -> None:
    result = invoked("-c", "-", "--siem", "qradar", "--server", "q", "--source", "/a/audit.json",
                     "--product", "alm", "--name", "siem-1", "--port", "5514")  # fmt: skip
    config = load_text(result.output, "x.yaml").config
    assert getattr(config.sources["alm"], "path", "") == "/a/audit.json*"
    assert config.sources["alm"].product == "alm"
    assert getattr(config.sinks["siem-1"], "port", 0) == 5514


def test_a_file_of_ones_own_has_its_buffer_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    invoked("-c", str(file), "--siem", "rsyslog", "--server", "h", "--source", "journal")
    loaded = load(str(file))
    assert loaded.config.state_dir == tmp_path / "relay.yaml.state"
    printed = invoked("-c", "-", "--siem", "rsyslog", "--server", "h", "--source", "journal")
    assert "state_dir" not in printed.output


def test_the_services_file_includes_the_parts_in_conf_d() -> None:
    result = invoked("-c", "-", "--siem", "qradar", "--server", "q", "--source", "journal")
    assert parse(result.output).value["include"] == "conf.d/*.yaml"


def test_a_file_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "siemrelay.yaml"
    file.write_text("mine")
    result = invoked("-c", str(file), "--siem", "qradar", "--server", "q", "--source", "journal")
    assert (result.exit_code, file.read_text()) == (64, "mine")
    assert "exists; edit it" in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "answer"),
    [
        ("--source journal --siem qradar", 2, "give --server …"),
        ("--source journal --siem sentinel --url https://a", 2, "--set rule=… --set stream=…"),
        ("--source journal", 2, "give --siem: generic, splunk"),
        ("--source journal --siem generic", 2, "give --server … or --url …"),
        ("--siem qradar --server q", 2, "give --source"),
        ("--siem qradar --server q --source audit.json", 2, "write an absolute path"),
        ("--siem qradar --server q --source journal --set colour=red", 78, "unknown key `colour`"),
        ("--siem qradar --server q --source journal --set colour", 2, "write KEY=VALUE"),
        ("--siem otlp --url http://u:pass1234@h --source journal", 78, "no user:password@"),
        ("--siem otlp --url http://h --source journal --set authorization=abcdefgh", 64,
         "an answer holds a secret"),
        ("--siem sumologic --url https://c/receiver/v1/http/ZaVnC4dhaV --source journal", 64,
         "leave out what follows /http/"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_what_to_give_and_nothing_is_written(
    arguments: str, code: int, answer: str, tmp_path: Path
) -> None:
    file = tmp_path / "siemrelay.yaml"
    result = invoked("-c", str(file), *shlex.split(arguments))
    assert result.exit_code == code, result.output
    assert answer in result.output
    assert "pass1234" not in result.output
    assert "abcdefgh" not in result.output
    assert not file.exists()


def test_each_answer_on_a_terminal_is_asked_for_until_it_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("siemrelay.cli.setup.init._may_ask", lambda: True)
    file = tmp_path / "x.yaml"
    answers = ["generic", "audit.json", "udp://0.0.0.0:99999", "journal", "ftp://x", "https://x/in"]
    result = CliRunner().invoke(init, ["-c", str(file)], input="\n".join([*answers, ""]))
    assert result.exit_code == 0, result.output
    asked = [line for line in result.stderr.splitlines() if "Error: " in line]
    for line, why in zip(asked, ("write an absolute path", "a port from 0 to 65535", "like https://"),
                         strict=True):  # fmt: skip
        assert why in line
    assert getattr(load(file).config.sinks["generic"], "url", "") == "https://x/in"


def test_a_wrong_source_is_found_before_the_next_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("siemrelay.cli.setup.init._may_ask", lambda: True)
    result = invoked("-c", "-", "--source", "audit.json")
    assert (result.exit_code, "SIEM (" in result.output) == (2, False)
    assert "--source audit.json: write an absolute path" in result.output


@pytest.mark.parametrize(
    ("secret", "advice"),
    [
        ("Splunk ${file:/etc/none/token}", "/etc/none/token: no such file; write the secret there"),
        ("Splunk ${credential:mine}", "cat > mine)"),
    ],
)
def test_a_secret_of_ones_own_takes_the_place_of_the_usual_one(
    tmp_path: Path, secret: str, advice: str
) -> None:
    file = tmp_path / "x.yaml"
    result = invoked("-c", str(file), "--siem", "splunk", "--url", "https://s:8088", "--source",
                     "journal", "--set", f"authorization={secret}")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert secret in file.read_text()
    assert advice in result.output
    assert "splunk_token" not in result.output


def test_without_its_directory_it_names_the_command_that_makes_it(tmp_path: Path) -> None:
    file = tmp_path / "none/siemrelay.yaml"
    result = invoked("-c", str(file), "--siem", "qradar", "--server", "q", "--source", "journal")
    assert result.exit_code == 64
    assert "`siemrelay install` makes the service's own" in result.output
