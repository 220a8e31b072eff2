"""Bodies that hold many records: each item is one, with its own bytes."""

from __future__ import annotations

import json
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.wire.forms import form_value
from siemrelay.wire.http_bodies import BodyKind, BodyRefused, TooManyRecords, finish, read_records
from siemrelay.wire.items import ItemSplitter
from tests.support.examples import examples

MOST = 5


def read(
    body: bytes, items: str | None, kind: BodyKind = "json", members: bytes = b""
) -> list[bytes]:
    splitter = None if items is None else ItemSplitter(items)
    found = finish(read_records(body, kind, MOST, splitter, members))
    lines = found.payload.split(b"\n")
    assert lines.pop() == b""
    assert len(lines) == found.count
    return lines


@pytest.mark.parametrize(
    ("body", "items", "records"),
    [
        (b'{"Records": [{"a": 1.0}, {"a":"\\u00e9"}]}', "Records",
         [b'{"a": 1.0}', b'{"a":"\\u00e9"}']),
        (b'{"data":{"events":[{"a":1}]},"eventId":"x"}', "data.events", [b'{"a":1}']),
        (b'{"items":[1,"two",[3],null]}', "items", [b"1", b'"two"', b"[3]", b"null"]),
        (b'{"items": []}', "items", []),
        (b'[{"items":[1,2]},{"items":[3]},{"n":4}]', "items", [b"1", b"2", b"3", b'{"n":4}']),
        (b'{"items":[\n {"a":\n 1}\n]}', "items", [b'{"a":1}']),
        (b'{"other":1}', "items", [b'{"other":1}']),
        (b'{"items":{"a":1}}', "items", [b'{"items":{"a":1}}']),
        (b'{"data":[1]}', "data.events", [b'{"data":[1]}']),
        (b'{"a":"\\"items\\""}', "items", [b'{"a":"\\"items\\""}']),
        (b'{"items":[1]}', None, [b'{"items":[1]}']),
    ],
)  # fmt: skip
def test_each_item_is_a_record_and_what_has_none_stays_one(
    body: bytes, items: str | None, records: list[bytes]
) -> None:
    assert read(body, items) == records


def test_the_items_of_every_line_are_records() -> None:
    assert read(b'{"r":[1,2]}\n{"r":[3]}\n', "r", "values") == [b"1", b"2", b"3"]
    assert read(b'{"r":[1,2]}\n', "r", "lines") == [b'{"r":[1,2]}']


def test_more_items_than_allowed_refuse_the_whole_body() -> None:
    with pytest.raises(TooManyRecords):
        read(b'{"r":[1,2,3,4,5,6]}', "r")
    with pytest.raises(BodyRefused):
        read(b'{"r":[1,', "r")


@examples(60)
@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9)),
                max_size=MOST))  # fmt: skip
def test_items_are_what_a_json_reader_finds(values: list[dict[str, object]]) -> None:
    found = read(json.dumps({"a": {"b": values}, "c": 1}).encode(), "a.b")
    assert [json.loads(item) for item in found] == values


@pytest.mark.parametrize(
    ("record", "made"),
    [
        (b'{"a":1}', b'{"a":1,"X-Event":"push"}'),
        (b"{ }", b'{"X-Event":"push"}'),
        (b'{"a":{}}', b'{"a":{},"X-Event":"push"}'),
        (b'{"X-Event":"forged"}', b'{"X-Event":"forged","X-Event":"push"}'),  # the last one counts
        (b"[]", None),
        (b"5", b"5"),
    ],
)
def test_an_object_gets_the_type_that_a_header_names(record: bytes, made: bytes | None) -> None:
    assert read(record, None, members=b'"X-Event":"push"') == ([] if made is None else [made])


def test_a_forms_field_is_found_and_unescaped_and_others_are_left_alone() -> None:
    event = json.dumps({"a": "ö &=+%\n" * 9000})
    body = urllib.parse.urlencode({"b": "1", "payload": event, "c": ""}).encode()
    assert finish(form_value(body, "payload")).decode() == event
    assert finish(form_value(b"payload=%7b%7", "payload")) == b"{%7"
    for without in (b"", b"payload", b"c=1", b"&" * 100 + b"payload=1"):
        with pytest.raises(BodyRefused, match="no field `payload`"):
            finish(form_value(without, "payload"))
