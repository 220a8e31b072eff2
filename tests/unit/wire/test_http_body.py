"""Bodies of requests → records: what is taken, how it is kept, where a fault is said to be."""

from __future__ import annotations

import contextlib
import gzip
import json
import zlib
from collections.abc import Mapping
from io import BytesIO

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.wire.hec_server import HecReader, HecRefused
from siemrelay.wire.http_bodies import (
    ROW_BYTES,
    BodyKind,
    BodyRefused,
    BodyTooLarge,
    Payload,
    body_kind,
    decompressed,
    finish,
    read_records,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
KINDS: list[BodyKind] = ["json", "values", "lines"]
MOST = 1_000_000


def records_of(body: bytes, kind: BodyKind) -> Payload:
    return finish(read_records(body, kind, MOST))


def events(body: bytes, reader: HecReader | None = None) -> list[bytes]:
    return finish((reader or READER).events(body, MOST))


def raw_lines(
    body: bytes, query: Mapping[str, str], reader: HecReader | None = None
) -> list[bytes]:
    return finish((reader or READER).lines(body, query, MOST))


def records(body: bytes, kind: BodyKind = "json") -> list[bytes]:
    found = records_of(body, kind)
    lines = found.payload.split(b"\n")
    assert lines.pop() == b""
    assert len(lines) == found.count
    return lines


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        (b'{"a": 1}', "json", [b'{"a": 1}']),
        (b'[{"a": 1}, {"b":2}]', "json", [b'{"a": 1}', b'{"b":2}']),
        (b"  [\n1 ,\n[2]\n]", "json", [b"1", b"[2]"]),
        (b"[]", "json", []),
        (b'{"a":1}\n{"b":2}\n', "json", [b'{"a":1}', b'{"b":2}']),
        (b'{"a":1}\r\n\r\n{"b":2}', "values", [b'{"a":1}', b'{"b":2}']),
        (b"[1]\n[2]", "values", [b"[1]", b"[2]"]),
        (b'{\n "a": [1,\n  2]\n}', "json", [b'{"a":[1,2]}']),
        (b'[{\n"a": 1\n}, {"b": 2}]', "json", [b'{"a":1}', b'{"b":2}']),
        (b'\xef\xbb\xbf{"a":1}', "json", [b'{"a":1}']),
        (b'{"a":"\xff"}', "json", [b'{"a":"\xff"}']),
        (rb'{"a":"\ud83d"}', "json", [rb'{"a":"\ufffd"}']),
        (
            rb'["\udc00\u0041", "\ud83d\ud83d\ude00"]',
            "json",
            [rb'"\ufffd\u0041"', rb'"\ufffd\ud83d\ude00"'],
        ),
        (rb'{"\\ud83d":"\\\ud83d"}', "values", [rb'{"\\ud83d":"\\\ufffd"}']),
        (b"one\n\ntwo", "lines", [b"one", b"two"]),
        (b"\x00\xff\n", "lines", [b"\x00\xff"]),
    ],
)
def test_a_body_gives_its_records(body: bytes, kind: BodyKind, expected: list[bytes]) -> None:
    assert records(body, kind) == expected


@pytest.mark.parametrize(
    ("body", "kind", "line", "column", "byte"),
    [
        (b'{"a":1}\n{"b" 2}', "values", 2, 6, 13),
        (b'[{"a":1},\n {"a" 1}]', "json", 2, 7, 16),
        (b'[{"a":1}', "json", 1, 9, 8),
        (b'{"a":1}\n{"b":', "json", 2, 6, 13),
        (b"[1] 2", "json", 1, 5, 4),
        (b'{"a":"x\ny"}', "json", 1, 8, 7),
        (b"\x00", "json", 1, 1, 0),
    ],
)
def test_a_fault_is_said_with_its_place(
    body: bytes, kind: BodyKind, line: int, column: int, byte: int
) -> None:
    with pytest.raises(BodyRefused) as caught:
        records_of(body, kind)
    assert (caught.value.line, caught.value.column, caught.value.byte) == (line, column, byte)
    assert f"line {line}, column {column} (byte {byte}): " in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", [b"", b"\n\n", b"\r\n"])
def test_an_empty_body_is_refused(body: bytes, kind: BodyKind) -> None:
    with pytest.raises(BodyRefused, match="empty"):
        records_of(body, kind)


def test_json_that_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(BodyRefused, match="nested"):
        records_of(b"[" * 200_000, "json")


@given(st.binary(max_size=200) | st.text().map(str.encode), st.sampled_from(KINDS))
def test_any_body_gives_records_or_one_fault(body: bytes, kind: BodyKind) -> None:
    try:
        records(body, kind)
    except BodyRefused as fault:
        said = fault
    else:
        return
    assert said.byte is None or 0 <= said.byte <= len(body)


@given(st.lists(VALUES, min_size=1), st.sampled_from([None, 1]), st.booleans())
def test_what_was_sent_is_what_is_kept(sent: list[object], indent: int | None, array: bool) -> None:
    texts = [json.dumps(value, indent=indent) for value in sent]
    body = "[" + ",".join(texts) + "]" if array else "\n".join(texts)
    kind: BodyKind = "json" if array else "values"
    assert [json.loads(record) for record in records(body.encode(), kind)] == sent


def test_a_large_body_goes_into_several_rows_and_none_is_lost() -> None:
    body = b"".join(b'{"n":%d,"x":"%s"}\n' % (n, b"x" * 500) for n in range(4000))
    found = records_of(body, "values")
    rows = list(found.rows())
    assert len(rows) > 2
    assert all(len(row.payload) < ROW_BYTES + 1000 for row in rows)
    assert b"".join(row.payload for row in rows) == body
    assert [row.count for row in rows] == [len(BytesIO(row.payload).readlines()) for row in rows]
    assert list(Payload(b"", 0).rows()) == []


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        ("", "json"),
        ("application/json", "json"),
        ("Application/JSON; charset=UTF-8", "json"),
        ("application/cloudevents+json", "json"),
        ("application/x-ndjson", "values"),
        ("text/plain; charset=utf-8", "lines"),
        ("application/json; charset=utf-16", None),
        ("application/x-www-form-urlencoded", "form"),
        ("text/html", None),
    ],
)
def test_the_content_type_says_how_a_body_is_read(content_type: str, kind: str | None) -> None:
    assert body_kind(content_type) == kind


def test_compressed_bodies_are_read() -> None:
    assert decompressed(gzip.compress(b"one") + gzip.compress(b"two"), "gzip", 6) == b"onetwo"
    assert decompressed(zlib.compress(b"one"), "deflate", 3) == b"one"
    for packed in (zlib.compress(b"one"), gzip.compress(b"one")):  # as graypy and pygelf name both
        assert decompressed(packed, "gzip,deflate", 3) == b"one"
    assert decompressed(b"one", "identity", 3) == b"one"


def test_a_bomb_is_stopped_at_the_limit() -> None:
    bomb = gzip.compress(bytes(1 << 24))
    with pytest.raises(BodyTooLarge):
        decompressed(bomb, "gzip", 1000)
    with pytest.raises(BodyTooLarge):
        decompressed(gzip.compress(b"x" * 600) * 2, "gzip", 1000)
    with pytest.raises(BodyRefused, match="members"):
        decompressed(gzip.compress(b"") * 1000, "gzip", 1000)


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_cut_or_damaged_compressed_body_is_refused(cut: int) -> None:
    whole = gzip.compress(b"a body of some length")
    with pytest.raises(BodyRefused):
        decompressed(whole[:-cut], "gzip", 1000)
    with pytest.raises(BodyRefused):
        decompressed(b"no gzip", "gzip", 1000)


# -- Splunk's envelopes ---------------------------------------------------

READER = HecReader(["time", "timestamp"], as_json=True)


def hec(body: bytes) -> list[object]:
    return [json.loads(record) for record in events(body)]


def test_an_event_is_the_record_with_its_metadata_beside_its_fields() -> None:
    body = (
        b'{"time": 1709280000.123, "host": "h", "source": "s", "sourcetype": "t", "index": "i",'
        b'"fields": {"k": "v"}, "event": {"type": "x"}}{"event": {"timestamp": 1}, "time": 2}'
        b'\n{"event": {}}{"event":{ },"host":"h"}'
    )
    assert hec(body) == [
        {
            "time": 1709280000.123, "type": "x",
            "hec": {"host": "h", "source": "s", "sourcetype": "t", "index": "i",
                    "time": 1709280000.123, "fields": {"k": "v"}},
        },
        {"timestamp": 1, "hec": {"time": 2}},
        {},
        {"hec": {"host": "h"}},
    ]  # fmt: skip


def test_an_event_that_is_a_text_becomes_a_message_unless_it_is_json() -> None:
    assert hec(b'{"event": "two\\nlines", "host": "h"}{"event": "{\\"a\\": 1}"}{"event": 5}') == [
        {"hec": {"host": "h"}, "message": "two\nlines"},
        {"a": 1},
        {"message": 5},
    ]


def test_texts_are_kept_as_they_are_for_a_decoder_of_texts() -> None:
    reader = HecReader(["time"], as_json=False)
    assert events(b'{"event": "CEF:0|a|b\\nc", "host": "h"}', reader) == [b"CEF:0|a|b\nc"]
    assert raw_lines(b"<13>one\r\n\n<13>two", {"host": "h"}, reader) == [b"<13>one", b"<13>two"]


def test_raw_lines_get_the_metadata_of_the_query() -> None:
    lines = raw_lines(b'text\n{"a":1}\n\xff', {"host": "h", "channel": "c"})
    assert json.loads(lines[0]) == {"message": "text", "hec": {"host": "h"}}
    assert json.loads(lines[1]) == {"a": 1, "hec": {"host": "h"}}
    assert lines[2] == b"\xff"


@pytest.mark.parametrize(
    ("body", "code", "number"),
    [
        (b"", 5, None),
        (b" \n", 5, None),
        (b'{"event": 1}{"event"', 6, 1),
        (b'{"event": 1}\n[2]', 6, 1),
        (b"text", 6, 0),
        (b'{"event": 1}{"host": "h"}', 12, 1),
        (b'{"event": null}', 12, 0),
        (b'{"event": 1}{"event": 2}{"event": " "}', 13, 2),
        (b'{"event": 1, "fields": [1]}', 15, 0),
    ],
)
def test_a_faulty_request_is_refused_with_splunks_code(
    body: bytes, code: int, number: int | None
) -> None:
    with pytest.raises(HecRefused) as caught:
        events(body)
    assert (caught.value.code, caught.value.number) == (code, number)


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_any_body_gives_events_or_one_of_splunks_codes(body: bytes) -> None:
    for read in (events, lambda body: raw_lines(body, {})):
        with contextlib.suppress(HecRefused):
            assert read(body)
            continue
        with pytest.raises(HecRefused) as caught:
            read(body)
        assert caught.value.code in (5, 6, 12, 13, 15)


@given(st.lists(VALUES.filter(lambda v: v is not None and str(v).strip() != ""), min_size=1))
def test_every_envelope_is_one_record_on_one_line(sent: list[object]) -> None:
    body = b" ".join(
        json.dumps({"event": event, "time": 1.5, "host": "h"}, indent=1).encode() for event in sent
    )
    found = events(body)
    assert len(found) == len(sent)
    for record, event in zip(found, sent, strict=True):
        assert b"\n" not in record
        said = msgspec.json.decode(record)
        assert said["hec"] == {"host": "h", "time": 1.5} or (
            isinstance(event, dict) and "hec" in event
        )
