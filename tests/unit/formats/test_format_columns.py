"""What formats find for all events in one go is what they would find for each."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.core.event import AuditEvent
from siemrelay.core.times import epoch_ms
from siemrelay.formats.writing.address import dotted_quad, dotted_quads, ip_version, ip_versions
from siemrelay.formats.writing.attributes import Named, attribute_column, flattened
from siemrelay.formats.writing.columns import Column, Lines, told
from siemrelay.formats.writing.epoch import EpochMs
from siemrelay.formats.writing.json_text import inside, message_of
from siemrelay.formats.writing.templates import shown
from siemrelay.formats.writing.text import visible
from tests.support.strategies import ADDRESSES, ATTRIBUTES, JSON, TIMES, selection_of, texts

COLUMNS = st.lists(st.none() | texts() | st.sampled_from(["`", "a`b", "``"]), max_size=6)


def in_json(text: str) -> str:
    return message_of(text)[1:-1].decode()


@pytest.mark.parametrize(
    ("escape", "alone"), [(shown, shown), (visible, visible), (inside, in_json)]
)
@given(column=COLUMNS)
def test_a_column_is_escaped_as_each_of_its_texts(
    escape: Any, alone: Any, column: list[str | None]
) -> None:
    expected = [None if text is None else alone(text) for text in column]
    assert list(Column(column).escaped(escape).texts) == expected


@given(column=COLUMNS)
def test_a_column_knows_who_is_without(column: list[str | None]) -> None:
    there = [text is not None for text in column]
    made = Column(column)
    assert made.complete == all(there)
    assert made.empty == (bool(column) and not any(there))
    assert list(told(column).texts) == [text or None for text in column]


@given(rows=st.lists(st.tuples(*[st.none() | st.sampled_from(["x", "y,"])] * 3), min_size=1))
def test_pairs_that_a_line_lacks_leave_nothing_behind(rows: list[tuple[str | None, ...]]) -> None:
    lines = Lines(len(rows))
    pairs = [(f"{i}=", told(column), ";") for i, column in enumerate(zip(*rows, strict=True))]
    lines.group("<", pairs, ">")
    there = [[f"{i}={text};" for i, text in enumerate(row) if text] for row in rows]
    assert list(lines.joined()) == [f"<{','.join(said)}>" if said else "" for said in there]


@given(times=st.lists(TIMES, min_size=1))
def test_times_are_the_same_milliseconds_together(times: list[str]) -> None:
    assert EpochMs().column(times) == [str(epoch_ms(time)) for time in times]


@given(addresses=st.lists(ADDRESSES.filter(bool) | st.sampled_from([
    "1.2.3", "1.2.3.4.5", "1.2.3.256", "1,2.3.4", "-0.1.2.3", "1e1.2.3.4", "1.2.3.04", "1 .2.3.4",
]), min_size=1))  # fmt: skip
def test_addresses_are_of_the_same_kind_together(addresses: list[str]) -> None:
    assert dotted_quads(addresses) == all(map(dotted_quad, addresses))
    assert ip_versions(addresses) == list(map(ip_version, addresses))


def together(lines: Lines, own: Any) -> bool:
    for named in own:
        assert isinstance(named, Named)
        lines.pair(f" {named.name}=", Column(list(map(repr, named.values))))
    return True


def alone(own: dict[str, Any]) -> str:
    return "".join(f" {name}={value!r}" for name, value in flattened(own))


@given(kinds=st.lists(ATTRIBUTES, min_size=1, max_size=3), raw=st.booleans(), apart=st.booleans())
def test_attributes_are_read_the_same_together(
    kinds: list[dict[str, Any]], raw: bool, apart: bool
) -> None:
    every = (kinds * 20)[: 16 * len(kinds) + 1]
    try:
        given_as: list[Any] = [
            msgspec.Raw(msgspec.json.encode(own)) if raw else own for own in every
        ]
    except UnicodeEncodeError:
        given_as = list(every)
    selection = selection_of([AuditEvent(id="e", type="t", attributes=own) for own in given_as])
    column = attribute_column(selection, alone, together, apart=apart)
    assert list(column.texts) == [alone(own) or None for own in every]


@given(st.lists(st.permutations("abc"), min_size=4, max_size=8), st.lists(JSON, min_size=1))
def test_attributes_of_few_names_in_many_sets_are_read_name_by_name(
    orders: list[list[str]], values: list[Any]
) -> None:
    sets = [order[: i % 4] for i, order in enumerate(orders)]
    every = [dict.fromkeys(sets[i % len(sets)], values[i % len(values)]) for i in range(64)]
    selection = selection_of([AuditEvent(id="e", type="t", attributes=own) for own in every])
    asked: list[dict[str, Any]] = []

    def counted(own: dict[str, Any]) -> str:
        asked.append(own)
        return alone(own)

    column = attribute_column(selection, counted, together, apart=True)
    assert list(column.texts) == [alone(own) or None for own in every]
    assert len(set(map(tuple, every))) <= 3 or all(len(own) == 1 for own in asked)
