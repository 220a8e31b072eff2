"""The canonical form of JSON, against an implementation that is not ours."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.core.canonical_json import RepeatedName, canonical, forms_of, parsed, parsed_lines

TEXTS = st.text(max_size=12) | st.sampled_from(["\ufb33", "\U0001f600", "\x7f", "\u2028", "1e3"])
NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(value=VALUES, ascii_only=st.booleans(), spaces=st.sampled_from([None, 2]))
def test_the_canonical_form_is_that_of_rfc_8785(
    value: Any, ascii_only: bool, spaces: int | None
) -> None:
    written = json.dumps(value, ensure_ascii=ascii_only, indent=spaces)
    assert canonical(written.encode("utf-8", "surrogatepass")) == rfc8785.dumps(value)


@given(bits=st.binary(min_size=8, max_size=8))
def test_every_double_is_written_as_ecmascript_writes_it(bits: bytes) -> None:
    (number,) = struct.unpack("d", bits)
    if number == number and abs(number) != float("inf"):
        assert canonical(repr(number).encode()) == rfc8785.dumps(number)


@pytest.mark.parametrize("text", [b"", b"{", b'{"a":1} x', b"\xff", b"[" * 100_000])
def test_what_has_no_canonical_form_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical(text)


@pytest.mark.parametrize("number", ["1e400", "-1e999", "1E400", "17.5e999999999999"])
def test_a_number_beyond_a_double_keeps_its_text(number: str) -> None:
    assert (
        canonical(f'{{"b": [ {number} ], "a": 1.0}}'.encode())
        == f'{{"a":1,"b":[{number}]}}'.encode()
    )


@given(value=VALUES, name=TEXTS, ascii_only=st.booleans(), spaces=st.sampled_from([None, 2]))
def test_a_name_that_stands_twice_in_an_object_is_refused(
    value: Any, name: str, ascii_only: bool, spaces: int | None
) -> None:
    def written(each: Any) -> str:
        return json.dumps(each, ensure_ascii=ascii_only, indent=spaces)

    text = f'{{{written(name)}: 1, "x": [{written(value)}, "\\u0022"], {written(name)}: "\\u0022"}}'
    with pytest.raises(RepeatedName, match="twice"):
        canonical(text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(("one", "other"), [
    ("9007199254740993", "9007199254740992"), ("9223372036854775807", "9223372036854775806"),
    ("18446744073709551616", "18446744073709551617"), ("1" * 40, "1" * 39 + "2"),
    ("-9007199254740993", "-9007199254740992"), ("9007199254740993", "9007199254740993.5"),
])  # fmt: skip
def test_integers_beyond_2_to_the_53_differ_by_each_digit(one: str, other: str) -> None:
    assert canonical(f'{{"id":{one}}}'.encode()) == f'{{"id":{one}}}'.encode()
    assert canonical(f"[{one}]".encode()) != canonical(f"[{other}]".encode())


ODD_LINES = (
    '{"a":1}', "{}", '{"a":', "1}", '{"a":{}', "}", "{", '{"b":2} {"c":3}', "", '{"a":1,"a":2}',
    '{"a":"\\u0022"}', '{"a":1e999}', "[]", '{"a":[{}', "{}]}", "\ufeff{}",
    '{"a":1,"a":2,"b":1e10}', '{"a":1,"a":2,"b":10000000000.0}', '{"a":1E5,"b":-0,"c":1}',
    '{"\U0001f600":1,"\ufb33":1.50}', '{"n":123456789012345678901}',
)  # fmt: skip
LINES = st.lists(
    st.dictionaries(TEXTS, VALUES, max_size=4).map(json.dumps) | st.sampled_from(ODD_LINES),
    min_size=1,
    max_size=5,
)


@given(lines=LINES, plain=st.integers(0, 20))
def test_lines_give_the_same_at_once_as_one_by_one(lines: list[str], plain: int) -> None:
    texts = [b'{"a":1}'] * plain + [line.encode("utf-8", "surrogatepass") for line in lines]
    values, forms, alone = parsed_lines(texts)
    assert len(values) == len(texts)
    for place, text in enumerate(texts):
        try:
            expected = parsed(text)[1]
        except ValueError:
            assert (values[place], forms[place], place in alone) == (None, text, True)
        else:
            assert forms[place] == expected
            assert place in alone or forms_of([values[place]]) == [expected]


def test_plain_lines_are_parsed_together() -> None:
    lines = [b'{"b":1.50,"a":"x\xc3\xa9"}', b'{"n":[{"c":-0.0}]}']
    values, forms, alone = parsed_lines(lines)
    assert forms == [b'{"a":"x\xc3\xa9","b":1.5}', b'{"n":[{"c":0}]}']
    assert (len(values), alone) == (2, set())
