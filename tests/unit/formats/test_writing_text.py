"""Control characters and lengths of texts in messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.formats.writing.text import cut_utf8, one_line_each
from tests.support.events.formats import carried
from tests.support.events.strategies import SPECIAL, texts


@given(messages=st.lists(texts().map(lambda t: t.encode("utf-8", "replace")), max_size=20))
def test_halving_a_run_gives_what_each_message_gives_alone(messages: list[bytes]) -> None:
    assert one_line_each(messages) == [carried(m.decode()).encode() for m in messages]


@pytest.mark.parametrize("character", SPECIAL)
def test_a_cut_message_is_still_utf8_and_says_that_it_was_cut(character: str) -> None:
    message = (character * 40).encode("utf-8", "replace")
    for limit in range(len(message) + 2):
        cut = cut_utf8(message, limit)
        assert len(cut) <= limit or cut == message
        if 8 <= limit < len(message):
            assert cut.endswith(b"...[cut]")
            assert message.startswith(cut[:-8])
            cut.decode()
