"""Records as lines: any bytes survive, and only a record with a line feed travels alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from siemrelay.core.lines import count_lines, must_stay_alone, payloads, records_of

RECORDS = st.lists(st.text("ab\n\r\0", max_size=4).map(str.encode), max_size=12)


@given(RECORDS)
def test_records_of_any_bytes_survive_as_lines(records: list[bytes]) -> None:
    made = list(payloads(records))
    assert [r for payload, some in made for r in records_of(payload, len(some))] == records
    for payload, some in made:
        assert must_stay_alone(payload, len(some)) == any(b"\n" in record for record in some)
        assert count_lines(payload) == payload.count(b"\n")


@given(RECORDS)
def test_records_without_a_line_feed_inside_travel_together(records: list[bytes]) -> None:
    plain = [record for record in records if b"\n" not in record]
    assert len(list(payloads(plain))) == bool(plain)
