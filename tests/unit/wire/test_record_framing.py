"""Framings: the records of a file, wherever reading stops, and whatever is in it."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from siemrelay.core.lines import records_of
from siemrelay.wire.framing.audit_events import AuditEvents
from siemrelay.wire.framing.contract import Ahead, Framing, Rest
from siemrelay.wire.framing.csv_rows import CsvFraming, Dialect
from siemrelay.wire.framing.encodings import Encoded, known_encoding
from siemrelay.wire.framing.json_documents import JsonFraming
from siemrelay.wire.framing.lines import LineFraming
from siemrelay.wire.framing.multiline import Multiline, is_indented
from tests.support.examples import examples

MIB = 1 << 20
_DATED = re.compile(rb"\d\d ").match


def multiline(*, max_lines: int = 4, max_bytes: int = 60) -> Multiline:
    return Multiline(lambda line: not _DATED(line), 1.0, max_lines, max_bytes, MIB)


FRAMINGS: dict[str, Callable[[], Framing]] = {
    "lines": lambda: LineFraming(MIB),
    "multiline": multiline,
    "indented": lambda: Multiline(is_indented, 1.0, 4, 60, MIB),
    "csv": lambda: CsvFraming(Dialect(), None, MIB),
    "columns": lambda: CsvFraming(Dialect(";", "'"), ("a", "b"), MIB),
    "json": lambda: JsonFraming(MIB),
    "utf-16": lambda: Encoded(multiline(), "utf-16"),
    "utf-16-be": lambda: Encoded(JsonFraming(MIB), "utf-16-be"),
    "auto": lambda: Encoded(CsvFraming(Dialect(), None, MIB), "auto"),
    "latin-1": lambda: Encoded(LineFraming(MIB), known_encoding("latin-1")),
    "auditd": lambda: AuditEvents(MIB),
    "cp932": lambda: Encoded(LineFraming(MIB), known_encoding("cp932")),
}


class Reading:
    """A content read as the file source reads it; `restart` forgets all but the position."""

    def __init__(self, framing: Framing) -> None:
        self._framing, self._splitter = framing, None
        self.offset = 0
        self.ahead: Ahead = ()
        self.records: list[bytes] = []

    def restart(self) -> None:
        self._splitter = None

    def read(self, content: bytes, rest: Rest) -> bool:
        """Whether anything was taken."""
        if self.offset == len(content):
            return False
        splitter = self._splitter
        if splitter is None:
            begin = content[: self._framing.begin_bytes]
            splitter = self._framing.splitter(begin, at_start=self.offset == 0)
            if self.offset:
                self._splitter = splitter  # type: ignore[assignment]  # None until now
        chunk = splitter.split(content[self.offset :], rest, self.ahead)
        if chunk is None:
            return False
        assert content[self.offset :].startswith(chunk.consumed)
        assert chunk.consumed or chunk.ahead != self.ahead
        self.offset, self.ahead = self.offset + len(chunk.consumed), chunk.ahead
        for payload, count in ((chunk.payload, chunk.count), *chunk.apart):
            if count:
                assert payload.endswith(b"\n")
                found = records_of(payload, count)
                assert len(found) == count
                self.records += found
        return True


def read(framing: Framing, content: bytes, stops: list[int], *, restart: bool) -> list[bytes]:
    reading = Reading(framing)
    for stop in [*sorted(stops), len(content)]:
        while reading.read(content[:stop], Rest.OPEN):
            if restart:
                reading.restart()
    while reading.read(content, Rest.FINAL):
        pass
    assert reading.offset == len(content)
    return reading.records


AUDIT_LINES = [
    b"type=SYSCALL msg=audit(10.1:1): a\n", b"type=PATH msg=audit(10.1:1): b\n",
    b"type=PROCTITLE msg=audit(10.1:1): c\n", b"type=EOE msg=audit(10.1:1): \n",
    b"type=SYSCALL msg=audit(10.2:2): d\n", b"type=EOE msg=audit(10.2:2): \n",
    b"node=x type=SYSCALL msg=audit(99.9:1): e\n", b"type=AVC msg=audit(13.1:3): f\n",
    b"type=USER_CMD msg=audit(10.1:4): g msg='h'\n",
]  # fmt: skip
_PIECES = st.sampled_from([
    b"01 first\n", b"02 second\n", b"  indented\n", b"\tat x\r\n", b"\n", b"\r\n", b"word\n",
    b"word", b'"quoted, ""value"" \n over lines",b\n', b"a,b\n", b"a;b\n", b"'q\n';c\n", b'"', b"'",
    b"x\ry,z\n", b'{"a": 1}\n', b'{"a": {"b": [1, 2]}}',
    b'{\n  "a": "t\\"}",\n  "b": [\n{}, {"c": 1}]\n}\n', b"[\n", b",", b"]\n", b'{"torn": "x\n',
    b'{"torn": [\n', b"\xff\xfe", b"\x00", b"\xef\xbb\xbf", b"\xe9", b"\x81\x40",
    *AUDIT_LINES, b"a\x00\n\x00", b"\x00\n\x00{", b"\x3d\xd8\x00\xde",
])  # fmt: skip


@pytest.mark.parametrize("name", FRAMINGS)
@examples(150)
@given(
    pieces=st.lists(_PIECES, max_size=12),
    stops=st.lists(st.integers(0, 200), max_size=8),
    restart=st.booleans(),
    encoded=st.booleans(),
)
@example(pieces=[b'"', b"a,b\n" * 1100], stops=[], restart=True, encoded=False)
def test_records_do_not_depend_on_where_reading_stops(
    name: str, pieces: list[bytes], stops: list[int], restart: bool, encoded: bool
) -> None:
    content = b"".join(pieces)
    if encoded:
        content = content.decode("latin-1").encode("utf-16")
    whole = read(FRAMINGS[name](), content, [], restart=False)
    assert read(FRAMINGS[name](), content, stops, restart=restart) == whole


@pytest.mark.parametrize("name", FRAMINGS)
@examples(60)
@given(pieces=st.lists(_PIECES, max_size=8), restart=st.booleans())
def test_reading_byte_by_byte_gives_the_records_of_the_whole(
    name: str, pieces: list[bytes], restart: bool
) -> None:
    content = b"".join(pieces)
    whole = read(FRAMINGS[name](), content, [], restart=False)
    assert read(FRAMINGS[name](), content, list(range(len(content))), restart=restart) == whole


def records(framing: Framing, content: bytes) -> list[bytes]:
    return read(framing, content, [], restart=False)


@pytest.mark.parametrize(
    ("framing", "content", "wanted"),
    [
        (multiline(), b"01 a\n at b\n\n at c\n02 d\n", [b"01 a\n at b\n\n at c", b"02 d"]),
        (multiline(), b"rest of one\n01 a\n", [b"rest of one", b"01 a"]),
        (multiline(), b"01 a\n" + b"x\n" * 5, [b"01 a\nx\nx\nx", b"x\nx"]),
        (multiline(max_lines=99), b"01 a\n" + b"x" * 50 + b"\n" + b"y" * 20 + b"\n",
         [b"01 a\n" + b"x" * 50, b"y" * 20]),
        (FRAMINGS["indented"](), b"a\n  b\r\n\tc\r\nd\n", [b"a\n  b\r\n\tc", b"d"]),
        (FRAMINGS["csv"](), b'time,user,\n1,"a ""b""\nc",x,y\n2,d\n\n3,e,f\n',
         [b'{"time":"1","user":"a \\"b\\"\\nc","column3":"x","column4":"y"}',
          b'{"time":"2","user":"d"}', b'{"time":"3","user":"e","column3":"f"}']),
        (FRAMINGS["csv"](), b"a,a\n1,2\na,a\n3,4\n",
         [b'{"a":"1","a_2":"2"}', b'{"a":"3","a_2":"4"}']),
        (FRAMINGS["csv"](), b"a\n\xff\n", [b'{"a": "\xff"}']),
        (FRAMINGS["columns"](), b"a;b\n1;'x\ny'\n2;z\n", [b"1;'x\ny'", b"2;z"]),
        (FRAMINGS["json"](), b'{"a":1}\n{"b":\n{"c":2}\n', [b'{"a":1}', b'{"b":', b'{"c":2}']),
        (FRAMINGS["json"](), b'[{"a": "]"}, {"b": [{}]}]', [b'{"a": "]"}', b'{"b": [{}]}']),
        (FRAMINGS["json"](), b'{\n  "a": [\n    1\n  ]\n}\n{\n  "b": {}\n}\n',
         [b'{"a":[1]}', b'{"b":{}}']),
        (FRAMINGS["json"](), b'[\n1,\n{"b": 2}\n]\n', [b"1,", b'{"b": 2}']),
        (FRAMINGS["auto"](), "\ufeffname\nM\u00fcller \U0001f600\n".encode("utf-16-le"),
         ['{"name":"M\u00fcller \U0001f600"}'.encode()]),
        (FRAMINGS["auto"](), b"\xef\xbb\xbfname\nx\n", [b'{"name":"x"}']),
        (FRAMINGS["latin-1"](), b"M\xfcller\n", ["M\u00fcller".encode()]),
        (FRAMINGS["cp932"](), "\u65e5\u672c\n".encode("cp932"), ["\u65e5\u672c".encode()]),
    ],
)  # fmt: skip
def test_a_content_has_these_records(framing: Framing, content: bytes, wanted: list[bytes]) -> None:
    assert records(framing, content) == wanted


def test_the_lines_of_an_audit_event_are_put_together_however_they_are_mixed() -> None:
    one, path, title, end, two, end_of_two, other, late, command = AUDIT_LINES
    reading = Reading(AuditEvents(MIB))
    content = command
    assert reading.read(content, Rest.OPEN)
    content += one + two + command + path
    while reading.read(content, Rest.OPEN):
        pass
    assert reading.records == [command[:-1]] * 2
    taken = (len(one + two), len(one + two + command))
    assert (reading.offset, reading.ahead) == (len(command), (taken,))
    reading.restart()
    content += end_of_two + title + end + other
    while reading.read(content, Rest.OPEN):
        pass
    assert reading.records[2:] == [two[:-1], b" ".join([one[:-1], path[:-1], title[:-1]])]
    assert reading.offset == len(content) - len(other)
    content += two + late
    while reading.read(content, Rest.OPEN):
        pass
    assert reading.records[4:] == [two[:-1]]  # three seconds are over on this node
    while reading.read(content, Rest.QUIET):
        pass
    assert reading.records[5:] == [other[:-1], late[:-1]]
    assert (reading.offset, reading.ahead) == (len(content), ())


def test_an_audit_event_that_never_ends_holds_up_so_much_and_no_more() -> None:
    reading = Reading(AuditEvents(MIB))
    one, command = AUDIT_LINES[0], AUDIT_LINES[8]
    content = one + command * (300 * 1024 // len(command))
    while reading.read(content, Rest.OPEN):
        pass
    assert reading.offset == len(content)
    assert one[:-1] in reading.records


def test_a_torn_document_costs_itself_and_not_what_follows() -> None:
    torn, whole = b'{\n  "a": [1,\n  "cut o', b'{\n  "a": 1\n}\n'
    for end in range(1, len(torn)):
        found = records(FRAMINGS["json"](), b'{\n"x": 0}\n' + torn[:end] + b"\n" + whole * 3)
        assert found[0] == b'{"x":0}'
        assert found[-2:] == [b'{"a":1}'] * 2


def test_a_quote_that_is_never_closed_costs_its_line_and_not_the_file() -> None:
    content = b'h1,h2\n"open,1\n' + b"a,b\n" * 3000
    found = records(FRAMINGS["csv"](), content)
    assert found[0] == b'"open,1'
    assert found[1:] == [b'{"h1":"a","h2":"b"}'] * 3000


@pytest.mark.parametrize(
    "encoding", ["utf-16-le", "utf-16-be", "latin-1", "cp1252", "cp932", "gbk"]
)
@given(content=st.binary(max_size=60))
def test_bytes_that_are_no_characters_are_neither_lost_nor_fatal(
    encoding: str, content: bytes
) -> None:
    # Through text, where each stands for itself, they could be had back.
    found = records(Encoded(LineFraming(MIB), known_encoding(encoding)), content)
    if encoding.startswith("utf-16") and len(content) % 2 == 0:
        text = content.decode(encoding, "surrogatepass").encode("utf-8", "surrogatepass")
        assert found == [line for line in text.split(b"\n") if line not in (b"", b"\r")]
    elif encoding == "latin-1":
        text = content.decode("latin-1").encode()
        assert found == [line for line in text.split(b"\n") if line not in (b"", b"\r")]


@pytest.mark.parametrize("name", ["utf-7", "iso2022_jp", "rot13", "base64", "no-such", "utf-32"])
def test_an_encoding_that_cannot_be_followed_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        known_encoding(name)


_VALUES = st.lists(
    st.lists(st.text(st.sampled_from('a,"\n;é\''), max_size=5), min_size=2, max_size=2)
    .filter(lambda row: row != ["", ""]), min_size=1, max_size=8,
)  # fmt: skip


@given(rows=_VALUES)
def test_what_a_csv_writer_writes_is_read_as_it_was(rows: list[list[str]]) -> None:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows([["one", "two"], *rows])
    found: list[dict[str, Any]] = [
        json.loads(record) for record in records(FRAMINGS["csv"](), file.getvalue().encode())
    ]
    assert [list(each.values()) for each in found] == [r for r in rows if r != ["one", "two"]]
    dialect = Dialect()
    for row in rows:
        file = io.StringIO(newline="")
        csv.writer(file, lineterminator="\n").writerow(row)
        assert dialect.values(file.getvalue()[:-1]) == row


@given(
    values=st.lists(
        st.recursive(
            st.none() | st.integers() | st.text(max_size=4),
            lambda inner: st.lists(inner, max_size=3)
            | st.dictionaries(st.text(max_size=3), inner, max_size=3),
            max_leaves=6,
        ).map(lambda value: {"v": value}),
        min_size=1, max_size=5,
    ),
    indent=st.sampled_from([None, 0, 2]), array=st.booleans(),
)  # fmt: skip
def test_json_of_any_layout_gives_its_objects(
    values: list[dict[str, Any]], indent: int | None, array: bool
) -> None:
    text = (
        json.dumps(values, indent=indent)
        if array
        else "\n".join(json.dumps(value, indent=indent) for value in values) + "\n"
    )
    found = records(FRAMINGS["json"](), text.encode())
    assert [json.loads(record) for record in found] == values
