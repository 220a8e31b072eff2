"""Values are found in text as whole words, and by what regular expressions call a word."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.transforms.redaction.words import without_word

_PIECES = st.lists(st.sampled_from(["bob", "b", "_", "-", " ", ".", "é", "1"]), max_size=12)


@pytest.mark.parametrize(
    ("text", "form", "without"),
    [
        ("bob saw bobby, not rob_bob: bob", "bob", "*** saw bobby, not rob_bob: ***"),
        ("a-1 and -1", "-1", "a*** and ***"),
        ("x" + 300 * "k", 300 * "k", "x***"),
        ("nothing", "bob", "nothing"),
    ],
)
def test_a_value_is_replaced_where_it_is_no_part_of_a_longer_word(
    text: str, form: str, without: str
) -> None:
    assert without_word(text, form, "***") == (without, without.count("***"))


@given(_PIECES.map("".join), _PIECES.map("".join).filter(bool))
def test_a_word_is_what_a_pattern_takes_for_one(text: str, form: str) -> None:
    left = r"(?<!\w)" if form[0].isalnum() else ""
    right = r"(?!\w)" if form[-1].isalnum() else ""
    assert without_word(text, form, "***") == re.subn(left + re.escape(form) + right, "***", text)
