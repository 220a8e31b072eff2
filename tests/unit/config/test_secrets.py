"""`${...}`: where values come from, what is missing, and that none of it is shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from siemrelay.config.effective import sink_settings
from siemrelay.config.load import load_text
from siemrelay.config.secrets import redactable
from siemrelay.config.substitution import Substituted, substitute, variables_of
from siemrelay.config.yaml_document import parse
from siemrelay.core.errors import ConfigurationRefused, Fault


def filled(text: str, **environment: str) -> tuple[Substituted, list[Fault]]:
    document = parse(f"key: {text}\n")
    assert not document.faults
    return substitute(document, environment), document.faults


def test_variable_is_filled_in_and_its_text_remembered() -> None:
    result, faults = filled('"Bearer ${TOKEN}, ${TOKEN}"', TOKEN="abcdef")
    assert not faults
    assert result.value == {"key": "Bearer abcdef, abcdef"}
    assert result.shown == {("key",): "Bearer ${TOKEN}, ${TOKEN}"}
    assert result.found == {"abcdef"}


@pytest.mark.parametrize("environment", [{}, {"HOST": ""}, {"HOST": " "}])
def test_a_default_stands_for_a_variable_that_is_not_set_or_blank(
    environment: dict[str, str],
) -> None:
    result, faults = filled("'${HOST:-siem.example.com}:${PORT:-514}'", PORT="601", **environment)
    assert not faults
    assert result.value == {"key": "siem.example.com:601"}
    assert result.shown == {("key",): "${HOST:-siem.example.com}:${PORT:-514}"}
    assert result.found == {"601"}, "a default is in the file, and redacting it would spoil the log"


def test_a_secret_as_a_default_is_one_in_the_file() -> None:
    text = "sources: {a: {type: stdin}}\nsinks:\n  s: {url: 'https://a/', authorization: '%s'}\n"
    plain = load_text(text % "${TOKEN:-Bearer abcdefg}", "f.yaml", {})
    assert plain.inline_secrets == (("sinks", "s", "authorization"),)
    assert "abcdefg" in plain.secrets
    assert "abcdefg" not in str(sink_settings(plain, "s"))
    assert not load_text(text % "${TOKEN:-Bearer}", "f.yaml", {"TOKEN": "abcdefg"}).inline_secrets


def test_variables_with_a_default_are_found_too() -> None:
    assert variables_of("${A} ${B:-x} ${file:/x} $${C}") == ["A", "B"]


def test_file_and_credential_lose_just_their_last_line_end(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"se\ncret\r\n")
    for reference in (f"${{file:{tmp_path}/token}}", "${credential:token}"):
        result, faults = filled(reference, CREDENTIALS_DIRECTORY=str(tmp_path))
        assert not faults
        assert result.value == {"key": "se\ncret"}


def test_two_dollars_stand_for_a_plain_one() -> None:
    result, faults = filled('"$${NAME} $5 $"')
    assert not faults
    assert result.value == {"key": "${NAME} $5 $"}
    assert not result.shown


def test_lists_are_filled_and_keys_are_not() -> None:
    document = parse('"${A}": ["${A}", {b: "${A}"}]\n')
    assert substitute(document, {"A": "x"}).value == {"${A}": ["x", {"b": "x"}]}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("${NOPE}", "environment variable NOPE is not set"),
        ("${credential:token}", "LoadCredential=token"),
        ("${file:/nope/nope}", "no such file"),
        ("${file:token}", "absolute path"),
        ("${file:/}", "not a file"),
        ("${credential:../x}", "is not one of"),
        ("${credential:..}", "is not one of"),
        ("${NOPE:-}", "is not plain text: write ${NOPE:-DEFAULT}"),
        ("${NOPE:- }", "is not plain text"),
        ("${NOPE:-${OTHER}", "is not plain text"),
        ("${NOPE}", "or give it a default: ${NOPE:-DEFAULT}"),
        ("${NOPE:default}", "is not one of"),
        ("${file:-x}", "absolute path"),
        ("${}", "is not one of"),
        ('"${NOPE"', "without its `}`"),
        ("${EMPTY}", "`${EMPTY}` is empty; give it a value"),
        ('"Basic ${BLANK}:x"', "`${BLANK}` is empty; give it a value"),
    ],
)
def test_reference_to_nothing_is_a_fault_that_says_what_to_do(text: str, part: str) -> None:
    result, (fault,) = filled(text, EMPTY="", BLANK=" ")
    assert part in fault.message
    assert (fault.key, fault.line, fault.column) == ("key", 1, 6)
    assert result.failed == {("key",)}


def test_credential_without_its_file_names_the_unit_setting(tmp_path: Path) -> None:
    _, (fault,) = filled("${credential:token}", CREDENTIALS_DIRECTORY=str(tmp_path))
    assert "LoadCredential=token:" in fault.message


def test_pipe_and_binary_and_huge_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "huge").write_bytes(b"x" * ((1 << 20) + 1))
    for name, part in (("pipe", "not a file"), ("binary", "UTF-8"), ("huge", "1 MiB")):
        _, (fault,) = filled(f"${{file:{tmp_path}/{name}}}")
        assert part in fault.message


def test_a_fault_names_an_unknown_key_whatever_fills_its_value() -> None:
    text = "sources: {a: {type: stdin}}\nsinks: {s: {server: h, token: '${TOKEN}'}}"
    with pytest.raises(ConfigurationRefused, match="unknown key `token`"):
        load_text(text, "x.yaml", {"TOKEN": "something"})


def test_a_fault_hides_an_unknown_name_that_a_variable_filled_in() -> None:
    text = "sources: {a: {type: stdin}}\nsinks: {s: {server: h, format: '${FORMAT}'}}"
    with pytest.raises(ConfigurationRefused, match=r"unknown format \*\*\*"):
        load_text(text, "x.yaml", {"FORMAT": "abc"})


def test_short_secrets_are_not_searched_for_in_logs() -> None:
    assert redactable({"abc", "abcd", ""}) == {"abcd"}
