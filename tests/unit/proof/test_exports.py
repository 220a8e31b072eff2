"""The messages in every shape of export: each shape of one stream is proven, and counts alike."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.proof.exports.parts import parts
from siemrelay.proof.verification import Verification
from tests.support.seals.stream import SIGNER, read_into, sealed


def splunk_csv(lines: list[bytes]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["_time", "_raw", "host"])
    for line in lines:
        writer.writerow(["2026-11-28T03:00:00.000+0000", line.decode(), "relay"])
    return out.getvalue().encode()


def hit(line: bytes) -> dict[str, object]:
    return {"_index": "logs", "_id": "x", "_source": json.loads(line), "sort": [1]}


def lines_of(values: list[object]) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def otlp(line: bytes) -> dict[str, object]:
    record = {"timeUnixNano": "1", "body": {"stringValue": line.decode()}}
    return {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}


SHAPES: dict[str, Callable[[list[bytes]], bytes]] = {
    "lines as sent": lambda x: b"".join(line + b"\n" for line in x),
    "without a line feed at the end": b"\n".join,
    "with a byte order mark": lambda x: b"\xef\xbb\xbf" + b"\r\n".join(x),
    "behind a syslog header": lambda x: b"".join(
        b"<110>Nov 28 03:00:00 relay siemrelay: " + line + b"\n" for line in x
    ),
    "Splunk, CSV": splunk_csv,
    "Splunk, JSON lines": lambda x: lines_of(
        [{"preview": False, "result": {"_raw": line.decode(), "host": "relay"}} for line in x]
    ),
    "Splunk, JSON with fields beside": lambda x: lines_of(
        [{"preview": False, "result": {"_raw": line.decode(), "type": json.loads(line)["type"],
                                       "siemrelay.n": json.loads(line)["siemrelay"]["n"]}}
         for line in x]
    ),
    "Splunk, JSON": lambda x: json.dumps(
        {"results": [{"_raw": line.decode()} for line in x]}, indent=1
    ).encode(),
    "Elasticsearch, hits": lambda x: lines_of(list(map(hit, x))),
    "Elasticsearch, documents": lambda x: lines_of(list(map(json.loads, x))),
    "Elasticsearch, a search": lambda x: json.dumps(
        {"took": 1, "hits": {"total": {"value": len(x)}, "hits": list(map(hit, x))}}, indent=2
    ).encode(),
    "Elasticsearch, pages of a scroll": lambda x: lines_of(
        [{"_scroll_id": "x", "hits": {"hits": list(map(hit, x[i : i + 5]))}}
         for i in range(0, len(x), 5)]
    ),
    "an array": lambda x: json.dumps(list(map(json.loads, x))).encode(),
    "a document with the message in a member": lambda x: lines_of(
        [{"@timestamp": "now", "event": {}, "message": line.decode()} for line in x]
    ),
    "Elasticsearch, the message in event.original as Elastic's agents keep it": lambda x: lines_of(
        [{"_source": {"@timestamp": "now", "event": {"kind": "event", "original": line.decode()}}}
         for line in x]
    ),
    "QRadar, results of a search": lambda x: json.dumps(
        {"events": [{"raw": f"<110>Nov 28 03:00:00 relay app: {line.decode()}"} for line in x]}
    ).encode(),
    "OTLP": lambda x: lines_of(list(map(otlp, x))),
    "Splunk, results in one line": lambda x: lines_of(
        [{"results": [{"_raw": line.decode(), "type": json.loads(line)["type"]} for line in x]}]
    ),
    "Graylog, pages": lambda x: lines_of(
        [{"messages": [{"message": json.loads(line), "index": "siem_0"} for line in x[i : i + 5]],
          "total_results": len(x)} for i in range(0, len(x), 5)]
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_stream_is_proven_in_every_shape_of_export(shape: Callable[[list[bytes]], bytes]) -> None:
    stream = sealed()
    checked = Verification([SIGNER.verifier], until=stream.now.timestamp())
    read_into(checked, [shape(stream.lines)])
    report = checked.report()
    assert (report.findings, report.rows) == ([], len(stream.lines))
    assert report.is_proven


# Lines of JSON in which it is not plain what is the message.
ODD: tuple[bytes, ...] = tuple(json.dumps(value).encode() for value in (
    {"hits": [{"a": 1}], "_siemrelay_n": "abcdefgh22:7"},
    {"hits": {"hits": []}, "took": 1}, {"hits": [], "user": "mallory"}, {"results": [[{"a": 1}]]},
    {"results": [{"_source": {"siemrelay": {"n": "abcdefgh22:7"}}}, {"a": 1}]},
    {"results": [{"message": {"a": 1}, "_siemrelay_n": "abcdefgh22:7"}]},
    {"messages": [{"message": {"a": 1}, "index": "x"}, 7, None, "CEF:0"]},
    {"messages": [{"message": {"a": 1}, "user": "mallory"}]},
    {"_source": {"a": 1}, "user": "mallory"}, {"_source": {"_raw": "{}"}},
    {"_raw": "{}", "siemrelay": {"n": "abcdefgh22:7"}}, {"_raw": "{}", "_source": {"a": 1}},
    {"result": {"_raw": '{"a":1,"a":2}', "a": "1"}}, {"result": {"_raw": '{"a":1}', "a": "2"}},
    {"result": {"_raw": '{"a":{"b":"x"}}', "a.b": "x", "a": ""}}, {"result": {"_raw": 7}},
    {"unmapped": {"siemrelay_n": "abcdefgh22:7"}, "siemrelay": {"n": "abcdefgh22:8"}},
    {"siemrelay.n": "abcdefgh22:7"}, {"a": 1.0, "b": 1e21, "c": 1.5}, {"timestamp": 1.50},
))  # fmt: skip


@given(
    rows=st.lists(st.sampled_from(ODD), min_size=1, max_size=3),
    shape=st.sampled_from([name for name in SHAPES if "line" in name or "page" in name]),
)
def test_messages_are_the_same_at_once_as_one_by_one(rows: list[bytes], shape: str) -> None:
    text = SHAPES[shape](sealed().lines[:6]).rstrip(b"\n")
    if not text.startswith(b"{"):
        return
    for lines in ([*rows, text], [text, *rows], rows):
        at_once = [*parts([b"\n".join(lines)])]
        # A line that takes care has all others looked at one by one, too.
        alone = [*parts([b"\n".join((b'{"u":"\\ud800"}', *lines))])]
        for of in ("hashes", "numbers"):
            every = [each for part in alone for each in getattr(part.leaves, of)]
            assert [each for part in at_once for each in getattr(part.leaves, of)] == every[1:]
        every = [each for part in alone for each in part.shown.values()]
        assert [each for part in at_once for each in part.shown.values()] == every


def test_an_export_that_is_cut_off_in_the_middle_of_its_json_cannot_be_read() -> None:
    whole = SHAPES["Elasticsearch, a search"](sealed().lines)
    with pytest.raises(ValueError, match="neither one JSON value a line nor one in all"):
        list(parts([whole[:-100]]))


@pytest.mark.parametrize("at", [0, 1, 50])
def test_a_line_that_is_no_json_is_one_added_message_and_hides_no_other(at: int) -> None:
    stream = sealed()
    lines = [*stream.lines]
    lines.insert(at, b'{"u":"\\ud800"}')
    checked = Verification([SIGNER.verifier], until=stream.now.timestamp())
    read_into(checked, [b"\n".join(lines)])
    report = checked.report()
    assert report.rows == len(lines)
    assert [finding.kind for finding in report.findings] == ["added"]


@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: {"_source": value}])
def test_members_that_the_siem_has_added_are_left_out_if_the_auditor_says_so(
    wrap: Callable[[dict[str, object]], dict[str, object]],
) -> None:
    stream = sealed()
    changed = [
        wrap({**json.loads(line), "@version": "1", "event": {"ingested": "now"}, "tags": []})
        for line in stream.lines
    ]
    for added, proven in ((("@version", "event.ingested", "tags"), True), (("@version",), False)):
        checked = Verification([SIGNER.verifier], until=stream.now.timestamp())
        read_into(checked, [lines_of(list(changed))], added)
        assert checked.report().is_proven is proven


def test_an_empty_export_has_no_messages() -> None:
    assert list(parts([b"", b""])) == []


GARBAGE = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([
        b'{"resourceLogs":[7]}', b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":7}]}]}]}',
        b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"kvlistValue":7}}]}]}]}',
        b'{"hits":{"hits":[7,null]}}', b'{"hits":[[]]}', b'{"result":{"_raw":7},"preview":1}',
        b'{"siemrelay":{"n":["x"]}}', b'{"_raw":"{"}', b'_raw\n"', b'a,_raw\n1\n"x', b"[[[[", b"{",
        b'{"a":' * 5000, b"[" * 5000, b'{"n":1e999}', b'{"n":"\xff"}', b"\x00", b"CEF:0|",
        b"LEEF:2.0|" + b"|" * 50, b"<0>" * 99, b"CEF:0" + b"|\\" * 4000,
    ]),
)  # fmt: skip


@given(garbage=st.lists(GARBAGE, max_size=4))
def test_garbage_gives_rows_or_one_kind_of_error(garbage: list[bytes]) -> None:
    try:
        for part in parts([b"\n".join(garbage)]):
            assert all(len(leaf) == 32 for leaf in part.leaves.hashes)
    except ValueError:
        pass


def test_a_row_of_a_csv_without_a_message_counts_as_one() -> None:
    text = splunk_csv(sealed().lines) + b"2026-11-28T03:00:01,,mallory\r\n"
    assert next(parts([text])).leaves.numbers[-1] is None


def test_rows_of_a_csv_are_whole_wherever_its_blocks_end() -> None:
    stream = sealed()
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["_time", "_raw", "note"])
    for i, line in enumerate(stream.lines):
        raw = json.dumps(json.loads(line), indent=1) if i % 3 else line.decode()
        writer.writerow(["now", raw, "" if i % 2 else 'a "b"\n\n,c'])
    text = out.getvalue().encode() + b"\n,,\n"
    (whole,) = parts([text])
    assert len(whole.lines) == len(stream.lines)
    assert whole.lines[-1] == text.count(b"\n") - 2
    for size in (1, 7, 100, 1_000):
        read = [*parts([text[i : i + size] for i in range(0, len(text), size)])]
        assert [n for part in read for n in part.lines] == list(whole.lines)
        assert [n for part in read for n in part.leaves.hashes] == whole.leaves.hashes
