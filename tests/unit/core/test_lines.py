"""Records as lines: any bytes survive, and records with line feeds do not cost the others."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

from hypothesis import given
from hypothesis import strategies as st

from siemrelay.core.event import AuditEvent, Batch, DecodedBatch, Selection
from siemrelay.core.lines import (
    count_lines,
    is_utf8,
    lines_of,
    must_stay_alone,
    payloads,
    records_of,
    separated,
    size_of,
)
from siemrelay.formats.raw import Raw
from siemrelay.wire.stream_framing import newline

RECORDS = st.lists(
    st.text("ab\n\r\0\x1e", max_size=4).map(str.encode) | st.binary(max_size=3), max_size=12
)
BOUND = st.none() | st.integers(-14, 14)


@given(RECORDS)
def test_records_of_any_bytes_survive_as_lines(records: list[bytes]) -> None:
    made = list(payloads(records))
    assert [r for payload, some in made for r in records_of(payload, len(some))] == records
    for payload, some in made:
        assert payload.endswith(b"\n")
        if any(b"\n" in record for record in some):
            assert must_stay_alone(payload, len(some))
        elif b"\x1e" not in payload:
            assert not must_stay_alone(payload, len(some))
        assert count_lines(payload) == payload.count(b"\n")


@given(RECORDS, st.data())
def test_some_of_the_records_of_a_payload_are_one_payload(
    records: list[bytes], data: st.DataObject
) -> None:
    for payload, some in payloads(records):
        keep = data.draw(st.lists(st.booleans(), min_size=len(some), max_size=len(some)))
        if kept := list(compress(records_of(payload, len(some)), keep)):
            assert records_of(separated(kept), len(kept)) == kept


@given(RECORDS)
def test_records_without_a_line_feed_inside_travel_together(records: list[bytes]) -> None:
    plain = [record for record in records if b"\n" not in record]
    assert len(list(payloads(plain))) == bool(plain)


def test_records_over_several_lines_travel_together_within_bounds() -> None:
    records = [b"%d\n  more" % n for n in range(10_000)] + [b"x" * 600_000 + b"\n"]
    made = list(payloads(records))
    assert len(made) < 20
    assert [r for payload, some in made for r in records_of(payload, len(some))] == records


@given(RECORDS, st.data())
def test_records_that_are_lines_are_the_same_records_taken_apart_or_not(
    records: list[bytes], data: st.DataObject
) -> None:
    for payload, some in payloads(records):
        lines = lines_of(payload, len(some))
        some_of_them = slice(*data.draw(st.tuples(BOUND, BOUND, st.sampled_from([None, 1, 2]))))
        assert lines == some
        assert lines[some_of_them] == some[some_of_them]
        assert size_of(lines) == sum(map(len, some))
        assert newline(lines) == newline(some)
        assert Raw().encode(selected(payload, some)) == as_raw(some)


def selected(payload: bytes, records: Sequence[bytes]) -> Selection:
    batch = Batch(1, len(records), "s", 0.0, payload)
    return Selection(DecodedBatch(batch, [AuditEvent()] * len(records)))


def as_raw(records: Sequence[bytes]) -> list[bytes]:
    """What `format: raw` makes of each record alone."""
    return [
        message
        for record in records
        for message in Raw().encode(selected(record + b"\n", [record]))
    ]


@given(
    st.lists(st.sampled_from([b"x" * 4095, "ä€😀".encode(), b"x", b"\xc3", b"\xa4"]), max_size=9)
)
def test_bytes_are_utf_8_if_they_can_be_decoded(pieces: list[bytes]) -> None:
    """They are tested in pieces of 4,096: the characters lie across the ends of these."""
    data = b"".join(pieces)
    assert is_utf8(data) == (data.decode("utf-8", "replace").encode() == data)
