"""What formats find for all events in one go is what they would find for each."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from siemrelay.core.event import AuditEvent
from siemrelay.core.times import epoch_ms
from siemrelay.formats.writing.address import dotted_quad, dotted_quads, ip_version, ip_versions
from siemrelay.formats.writing.attributes import FlatAttributes, Written, flattened, unique_names
from siemrelay.formats.writing.columns import Lines, column_of, nonempty
from siemrelay.formats.writing.epoch import EpochMs
from siemrelay.formats.writing.json_text import json_escape, message_of
from siemrelay.formats.writing.structured_data import param_value
from siemrelay.formats.writing.text import visible
from tests.support.events.strategies import ADDRESSES, ATTRIBUTES, TIMES, selection_of, texts
from tests.support.memory import kept_bytes

COLUMNS = st.lists(st.none() | texts() | st.sampled_from(["`", "a`b", "``"]), max_size=6)


def in_json(text: str) -> str:
    return message_of(text)[1:-1].decode()


@pytest.mark.parametrize(
    ("escape", "alone"), [(param_value, param_value), (visible, visible), (json_escape, in_json)]
)
@given(column=COLUMNS)
def test_a_column_is_escaped_as_each_of_its_texts(
    escape: Any, alone: Any, column: list[str | None]
) -> None:
    expected = [None if text is None else alone(text) for text in column]
    assert list(column_of(column).escaped(escape).texts) == expected


@given(column=COLUMNS)
def test_a_column_knows_who_is_without(column: list[str | None]) -> None:
    there = [text is not None for text in column]
    made = column_of(column)
    assert made.complete == all(there)
    assert made.empty == (bool(column) and not any(there))
    assert list(nonempty(column).texts) == [text or None for text in column]


@given(rows=st.lists(st.tuples(*[st.none() | st.sampled_from(["x", "y,"])] * 3), min_size=1))
def test_pairs_that_a_line_lacks_leave_nothing_behind(rows: list[tuple[str | None, ...]]) -> None:
    lines = Lines(len(rows))
    pairs = [(f"{i}=", nonempty(column), ";") for i, column in enumerate(zip(*rows, strict=True))]
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


def values(values: Sequence[Any], types: set[type]) -> Written:
    assert types == set(map(type, values))
    return "<", column_of([None if value is None else repr(value) for value in values]), ">"


def alone(own: dict[str, Any]) -> str | None:
    pairs = list(flattened(own))
    names = unique_names([name[:12] for name, _ in pairs], ["taken"], 12)
    return ", ".join(
        f"{name}=<{value!r}>"
        for name, (_, value) in zip(names, pairs, strict=True)
        if value is not None
    ) or None  # fmt: skip


LEAVES = st.none() | st.integers() | texts(4)

FLAT = FlatAttributes(
    "{}=", lambda name: name[:12], values, between=", ", taken=["taken"], most_characters=12
)


@given(
    kinds=st.lists(ATTRIBUTES, min_size=1, max_size=3),
    orders=st.lists(st.permutations(["taken", "taken_2", "x", "y"]), max_size=3),
    about=st.none() | st.dictionaries(st.sampled_from(["%s", "host", "a"]), LEAVES | ATTRIBUTES),
    events=st.sampled_from([1, 5, 40]), raw=st.booleans(),
)  # fmt: skip
@example([{"b.a": 1}, {"c": 1}, {"d": 1}], [], {"a": 2}, 40, False)
@example([{"%d": "%s"}, {"b": None}, {}], [], {"a": 1, "%s": {"x": "%"}}, 40, False)
def test_attributes_of_many_events_are_those_of_each(
    kinds: list[dict[str, Any]], orders: list[list[str]], about: dict[str, Any] | None,
    events: int, raw: bool,
) -> None:  # fmt: skip
    kinds = kinds + [dict.fromkeys(order, 1) for order in orders]
    if about is not None:  # an object with the same names in all events
        kinds = [{**own, "b": about} for own in kinds]
    every = [kinds[i % len(kinds)] for i in range(events)]
    try:
        given_as: list[Any] = [
            msgspec.Raw(msgspec.json.encode(own)) if raw else own for own in every
        ]
    except UnicodeEncodeError:
        given_as = list(every)
    selection = selection_of([AuditEvent(id="e", type="t", attributes=own) for own in given_as])
    assert list(FLAT.column(selection).texts) == [alone(own) for own in every]


def test_what_is_kept_of_sets_of_names_is_bounded() -> None:
    names = [chr(0x4E00 + i) for i in range(300)]
    flat = FlatAttributes("a rather long name of an attribute.{}=", str, values)

    def flood() -> None:
        rng = random.Random(1)
        for _ in range(10):
            sets = [dict.fromkeys(rng.sample(names, 300), 1) for _ in range(20)]
            sets += [dict.fromkeys(rng.sample(names, 20), 1) for _ in range(20)]
            events = [AuditEvent(id="e", type="t", attributes=own) for own in sets]
            flat.column(selection_of(events))

    # Of all of them it would be 5 MiB.
    assert kept_bytes(flood) < 1 << 20


@given(st.lists(st.text("ab", max_size=14).map(lambda name: name[:10]) | st.just("a_2")))
def test_names_are_made_unique_within_their_length(names: list[str]) -> None:
    unique = unique_names(names, ["a", "b"], 10)
    assert len(set(unique)) == len(names) == len(unique)
    assert not {"a", "b"} & set(unique)
    assert all(len(name) <= 10 for name in unique)
    assert all(
        now == name for name, now in zip(names, unique, strict=True)
        if names.count(name) == 1 and name not in ("a", "b", "a_2", "b_2")
    )  # fmt: skip
