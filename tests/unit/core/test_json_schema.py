"""Objects that are read by a learned schema are those that are read one by one."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import UNSET

from siemrelay.core.canonical_json import parsed, parsed_lines
from siemrelay.core.json_schema import LearnedSchema, plain

NAMES = st.sampled_from(["a", "b", "Z", "a.b", "é", '"', "\n", "", "\U0001f600"])
SCALARS = st.sampled_from([None, True, 1, 2**70, 1.5, 1e20, "x", "é", 'a "b"', "\U0001f600"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
LINE = st.dictionaries(NAMES, VALUES, max_size=4).map(json.dumps) | st.sampled_from([
    '{"a":1,"a":2}', '{"a":{"b":1,"b":1}}', '{"a":[{"b":1.50,"b":10}]}', '{"a":1', "[]", "{} {}",
    '{"a":1}\n{"b":2}', '{ "b" : {} , "a":[ ] }', '{"a":1.50}', '{"\\u0061":"\\/"}', '{"a":1e999}',
])  # fmt: skip
BATCHES = st.lists(st.lists(LINE, min_size=1, max_size=4), min_size=1, max_size=4)


@given(batches=BATCHES)
@example(
    batches=[['{"a":{"b":1}}'], ['{"a":null}', '{"a":{"b":1}}'], ['{"a":[1,{}]}'], ['{"a":[]}']]
)
@example(batches=[['{"a":[{"b":1}]}'], ['{"a":[{"b":2,"c":{"d":1}}]}', '{"a":[]}'], ['{"a":[1]}']])
def test_objects_of_a_shape_are_those_that_are_parsed_one_by_one(batches: list[list[str]]) -> None:
    schema = LearnedSchema()
    for batch in batches:
        lines = [line.encode() for line in batch]
        values, forms, alone = parsed_lines(lines)
        read = schema.objects_and_forms(lines)
        assert (read is None) == bool(alone)
        if read is not None:
            objects, written = read
            assert written == forms == objects.forms()
            assert shown(plain(objects.values)) == shown(values)
            for path in (("a",), ("a", "b"), ("a", "b", "a"), ("a.b",), ("none",)):
                column = [member(value, path) for value in values]
                assert shown(plain(objects.column(*path))) == shown(column)


def shown(value: Any) -> str:
    """By it 1, 1.0 and True differ, which are equal."""
    if isinstance(value, dict):
        return str([(name, shown(value[name])) for name in sorted(value)])
    if isinstance(value, msgspec.Raw):
        return msgspec.json.encode(value).decode()
    return str(list(map(shown, value))) if isinstance(value, list) else repr(value)


def member(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = value.get(name, UNSET) if isinstance(value, dict) else UNSET
    return value


def test_members_that_are_data_are_not_learned_for_ever() -> None:
    schema = LearnedSchema()
    for start in range(0, 30_000, 100):
        lines = [b'{"user":{"u%d":1}}' % n for n in range(start, start + 100)]
        read = schema.objects_and_forms(lines)
        assert read is None or read[1] == [parsed(line)[1] for line in lines]
    assert schema.objects_and_forms([b'{"user":{"other":1}}']) is not None
