"""YAML → values with marks: places, duplicates, the stricter reading of scalars, hostile files."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.config.yaml_document import Mark, dotted, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("no", False),
        ("on", True),
        ("Off", False),
        ("true", True),
        ("~", None),
        ("null", None),
        ("514", 514),
        ("-3", -3),
        ("1.5", 1.5),
        ("0", 0),
        ("0514", "0514"),
        ("0x1F", "0x1F"),
        ("12:30", "12:30"),
        ("2025-01-02", "2025-01-02"),
        ("1_000", "1_000"),
        ("1234567890123456789012", "1234567890123456789012"),
        ("'514'", "514"),
        ("10GiB", "10GiB"),
        ("127.0.0.1:9614", "127.0.0.1:9614"),
        ("[::1]:9614", None),
    ],
)
def test_scalars_are_read_as_people_mean_them(text: str, value: Any) -> None:
    document = parse(f"key: {text}\n")
    if text.startswith("["):
        assert document.faults
    else:
        assert document.value == {"key": value}
        assert type(document.value["key"]) is type(value)
        assert not document.faults


def test_every_key_and_value_has_its_line_and_column() -> None:
    document = parse("a:\n  b: [x, y]\n  c: {d: 1}\n")
    assert document.keys[("a", "b")] == Mark(2, 3)
    assert document.values[("a", "b", 1)] == Mark(2, 10)
    assert document.values[("a", "c", "d")] == Mark(3, 10)


def test_fault_of_a_missing_key_is_at_what_should_hold_it() -> None:
    document = parse("sinks:\n  a:\n    port: 1\n")
    fault = document.fault(("sinks", "a", "server"), "is required")
    assert (fault.key, fault.line, fault.column) == ("sinks.a.server", 2, 3)


def test_duplicate_key_is_a_fault_that_names_the_first_line() -> None:
    document = parse("a:\n  port: 1\n  port: 2\n")
    (fault,) = document.faults
    assert (fault.key, fault.line, fault.column) == ("a.port", 3, 3)
    assert "line 2" in fault.message
    assert document.value == {"a": {"port": 1}}


def test_keys_are_text_as_written() -> None:
    assert parse("on: 1\n1: 2\n~: 3\n").value == {"on": 1, "1": 2, "~": 3}


def test_anchors_and_merge_keys_work_and_own_keys_win() -> None:
    document = parse(
        "base: &base {port: 1, server: a}\nsink:\n  <<: *base\n  port: 2\n"
        "two:\n  <<: [*base, {server: b, more: 1}]\n"
    )
    assert document.value["sink"] == {"port": 2, "server": "a"}
    assert document.value["two"] == {"port": 1, "server": "a", "more": 1}
    assert document.keys[("sink", "server")] == Mark(1, 23)
    assert not document.faults


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("a: 1\n\tb: 2\n", 2, "tab"),
        ("a: b: c\n", 1, "quotes"),
        ("a: [1, 2\nb: 3\n", 2, "bracket"),
        ("a: {b: ${PORT:-514}}\n", 1, 'quotes around "${NAME}"'),
        ("a: 'x\n", 2, "quotation mark"),
        ("a: *nowhere\n", 1, "undefined alias"),
        ("a: 1\n---\nb: 2\n", 2, "another document"),
        ("a: \x07\n", 1, "not allowed"),
        ("a: !!python/object:os.system x\n", 1, "tag"),
        ("a: !mine {b: 1}\n", 1, "tag"),
        ("a: !!int x\n", 1, "tag"),
        ("? [a, b]\n: 1\n", 1, "plain text"),
        ("a: &a\n  - *a\n", 1, "circle"),
        ("a: &a\n  <<: *a\n", 1, "<<"),
        ("a:\n  <<: 5\n", 2, "<<"),
        ("[" * 600, 1, "deeply"),
    ],
)
def test_bad_yaml_is_a_fault_with_a_line(text: str, line: int, part: str) -> None:
    (fault, *_) = parse(text).faults
    assert fault.line == line
    assert part in fault.message


def test_aliases_that_multiply_are_stopped() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    (fault,) = parse("\n".join(levels)).faults
    assert "too many values" in fault.message


def test_empty_text_has_no_value_and_no_fault() -> None:
    for text in ("", "# only a comment\n", "---\n"):
        document = parse(text)
        assert document.value is None
        assert not document.faults


@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!<>|'\"#\n \t,~0.\x00é$?%@`")))
def test_garbage_is_a_value_or_faults_and_never_an_exception(text: str) -> None:
    document = parse(text)
    for fault in document.faults:
        assert fault.line is not None
        assert fault.line >= 1


def test_dotted_shows_indexes_in_brackets() -> None:
    assert dotted(("sinks", "q", "events", "include", 0)) == "sinks.q.events.include[0]"
    assert dotted(()) == ""


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a:\n\tb: 1\n", 2, "YAML is indented with spaces, not tabs"),
        ("a: @b\n", 1, "put quotes around text that begins with it"),
        ("a: *.log\n", 1, "put quotes around text that begins with `*` or `&`"),
        ("a: >b\n", 1, "put quotes around text that begins with `|` or `>`"),
        ('a: "\\d"\n', 1, "within \" a backslash must be doubled, within ' it stays one"),
        ("a:\n  b:c\n  d: e\n", 3, "write a space after the colon of each key"),
        ("a: 'it's'\n", 1, "within ' write an apostrophe as ''"),
        ("a: {b: 1\nc: 2\n", 2, "close the bracket or brace that begins in line 1"),
        ("a: 'b\nc: 2\n", 3, "close the quotation mark that begins in line 1"),
        ("[INPUT]\n  Name tail\n", 2, "this is another format than YAML"),
        ("a: 1\n---\nb: 2\n", 2, "a file is one document: take out the line `---`"),
        ("a: 1\0\n", 1, "take it out"),
    ],
)
def test_a_syntax_fault_says_what_to_do(text: str, line: int, message: str) -> None:
    (fault,) = parse(text).faults
    assert fault.line == line
    assert message in fault.message
