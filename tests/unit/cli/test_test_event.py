"""The event of `siemrelay test`: each format carries its mark, each SIEM has a search for it."""

from __future__ import annotations

import re

import msgspec
import pytest

from siemrelay import registry
from siemrelay.cli.test import marked_event
from siemrelay.config.presets import PRESETS, search_text
from siemrelay.core.event import Batch, DecodedBatch, Selection
from siemrelay.relay.own_events import new_test_mark


@pytest.mark.parametrize("name", registry.FORMATS)
def test_every_format_carries_the_mark_as_a_word_of_its_own(name: str) -> None:
    mark = new_test_mark()
    event = marked_event("ada", "siem", mark)
    record = msgspec.json.encode(event) + b"\n"
    form = registry.build_format(name, "none", registry.FORMATS[name].options(), "host")
    decoded = DecodedBatch(Batch(1, 1, "test", 1.7e9, record), [event])
    (message,) = form.encode(Selection(decoded))
    assert re.search(rf"\b{mark}\b", message.decode())


def test_a_mark_is_one_term_of_any_index_and_new_each_time() -> None:
    marks = {new_test_mark() for _ in range(100)}
    assert len(marks) == 100
    assert all(mark.isalnum() and mark == mark.lower() for mark in marks)


@pytest.mark.parametrize("siem", PRESETS)
def test_every_siem_has_a_search_with_the_mark(siem: str) -> None:
    text = search_text(siem, "siemrelaytest0a1b")
    assert "siemrelaytest0a1b" in text
    assert "{" not in text
