"""`items:` of a source: a record that holds many becomes many before it is stored."""

from __future__ import annotations

import json

import pytest

from siemrelay.config.load import load_text
from siemrelay.pipeline.intake import record_splitter
from siemrelay.pipeline.intake.record_splitter import RecordSplitter
from siemrelay.relay.assembly import Assembly
from siemrelay.sources.contract import Position, Records, joined


def splitter(path: str = "Records") -> RecordSplitter:
    return RecordSplitter("trail", path)


async def split(*records: bytes) -> list[bytes]:
    found = await splitter().split(joined(records))
    return [line for some in found for line in some.payload.split(b"\n")[:-1]]


async def test_each_item_is_a_record_and_the_rest_stays_as_it_is() -> None:
    assert await split(b'{"Records":[{"a":1},{"a": 2}]}', b'{"b":1}', b"no json", b'{"Records":[]}',
                       b'{"Records":[3') == [
        b'{"a":1}', b'{"a": 2}', b'{"b":1}', b"no json", b'{"Records":[3',
    ]  # fmt: skip


async def test_the_items_of_a_record_with_line_feeds_are_lines() -> None:
    assert await split(b'{"Records":[{\n"a":\n1},\n2]}') == [b'{"a":1}', b"2"]


async def test_the_position_stays_with_the_items() -> None:
    position = (Position("f", {"at": 1}),)
    some = Records(b'{"Records":[1,2,3]}\n', 1, position)
    assert await splitter().split([some]) == [Records(b"1\n2\n3\n", 3, position)]
    nothing = Records(b'{"Records":[]}\n', 1, position)
    assert await splitter().split([nothing]) == [Records(b"", 0, position)]


async def test_what_has_no_items_is_handed_on_untouched() -> None:
    for some in (
        Records(b'{"a":1}\n', 1), Records(b'{"Records":1}\n', 1), Records(b"", 0),
        Records(b'{"Records":[1]}\n', 1, part=1),
    ):  # fmt: skip
        (same,) = await splitter().split([some])
        assert same is some


async def test_a_record_with_too_many_items_is_kept_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_splitter, "MOST_ITEMS", 3)
    assert await split(b'{"Records":[1,2,3]}') == [b"1", b"2", b"3"]
    assert await split(b'{"Records":[1,2,3,4]}') == [b'{"Records":[1,2,3,4]}']


@pytest.mark.parametrize(
    ("source", "splits"),
    [
        ({"type": "file", "path": "/a", "items": "Records"}, True),
        ({"type": "file", "path": "/a"}, False),
        # Bodies are split where they are read, with the bounds of a request.
        ({"type": "http", "listen": "http://127.0.0.1:1", "items": "Records"}, False),
    ],
)
def test_only_a_source_with_items_has_its_records_split(
    source: dict[str, str], splits: bool
) -> None:
    text = json.dumps({"sources": {"a": source}, "sinks": {"s": {"server": "127.0.0.1"}}})
    assert (Assembly(load_text(text, "x.yaml").config).splitter("a") is not None) == splits
