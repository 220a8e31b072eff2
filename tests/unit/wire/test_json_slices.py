"""JSON in slices: the same values and faults as at once, whatever the size of a slice."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.wire.json_slices import (
    SLICE_BYTES,
    JsonFault,
    array_slices,
    decoded_json,
    value_slices,
)

ARRAY = msgspec.json.Decoder(list[msgspec.Raw]).decode
VALUES = msgspec.json.Decoder(msgspec.Raw).decode_lines
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text('a",}{[]\\\n', max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=8,
)
ALMOST_JSON = st.text('[]{},"\\\n 1a:', max_size=60).map(str.encode)
SIZES = st.integers(1, 40)


def in_slices(body: bytes, array: bool, size: int) -> list[bytes]:
    slices = array_slices(body, ARRAY, 0, size) if array else value_slices(body, VALUES, size)
    return [bytes(value) for some in slices for value in some]


@given(st.lists(JSON), SIZES, st.booleans(), st.sampled_from(["", " ", "\n", "\r\n\t"]))
def test_values_do_not_depend_on_where_they_are_sliced(
    sent: list[object], size: int, array: bool, space: str
) -> None:
    texts = [json.dumps(value) for value in sent]
    body = f"[{f'{space},{space}'.join(texts)}{space}]" if array else (space or "\n").join(texts)
    found = [json.loads(value) for value in in_slices(body.encode(), array, size)]
    assert found == sent


def outcome(read: Callable[[], list[bytes]]) -> tuple[list[bytes] | None, JsonFault | None]:
    try:
        return read(), None
    except JsonFault as fault:
        return None, fault


@given(ALMOST_JSON, SIZES, st.booleans())
def test_a_fault_is_found_in_slices_if_and_only_if_it_is_found_at_once(
    body: bytes, size: int, array: bool
) -> None:
    body = b"[" + body if array else body
    decode: Callable[[bytes], list[msgspec.Raw]] = ARRAY if array else VALUES
    whole, fault = outcome(lambda: [bytes(value) for value in decoded_json(decode, body)])
    found, fault_in_slices = outcome(lambda: in_slices(body, array, size))
    assert found == whole
    if fault is not None and fault_in_slices is not None and fault.byte != len(body):
        assert fault_in_slices.byte == fault.byte


@pytest.mark.parametrize(
    "body",
    [
        b"1," * 2_000_000 + b"1",
        b'"",' * 2_000_000 + b"1",
        b"[]," * 2_000_000 + b"1",
        b"{}," * 2_000_000 + b"1",
        b"[" + b"[]," * 2_000_000 + b"1]",
        b'"' + rb"\n" * 2_000_000 + b'"',
        b'"' + rb"\ud800" * 1_000_000 + b'"',
        b'"' + rb"\"," * 1_000_000 + b'"',
        (b"1," * 60_000 + b'"' + b"," * 20_000 + b'",') * 30 + b"1",
        (b"1," * 60_000 + b"[" + b"{},{}," * 20_000 + b"1],") * 20 + b"1",
        b"1," * 2_000_000 + b"}",
        b"[" * 500 + b"1," * 2_000_000,
    ],
    ids=lambda body: re.sub(r"\W", "_", body[:5].decode()) + str(len(body)),
)  # fmt: skip
@pytest.mark.parametrize("array", [True, False])
def test_no_step_makes_more_values_than_a_slice_has(body: bytes, array: bool) -> None:
    """Values cost time and memory: see SLICE_BYTES. Bodies with a fault are sliced as well."""
    text = b"[" + body + b"]" if array else body.replace(b",", b"\n")
    slices = array_slices(text, ARRAY, 0) if array else value_slices(text, VALUES)
    most = 0
    with contextlib.suppress(JsonFault):
        for values in slices:
            most = max(most, len(values))
    assert most <= SLICE_BYTES // 2 + 1
