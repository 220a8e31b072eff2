"""CSV and patterns: values by their names, and never more than the record says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay import registry
from siemrelay.core.event import FIELDS, AuditEvent, attributes_of
from siemrelay.core.event_types import UNPARSED, Catalogue
from siemrelay.core.extras import REGEX
from siemrelay.core.patterns import LinearPattern
from siemrelay.decoders.regex import RegexOptions
from siemrelay.products.product import BUILT_IN
from tests.support.events.strategies import batch_of

EVERYTHING = frozenset({*FIELDS, "attributes"})


def events(decoder: str, *records: bytes, **options: Any) -> list[AuditEvent]:
    kind = registry.DECODERS[decoder]
    made = kind.build(BUILT_IN["generic"].spellings, EVERYTHING, Catalogue(), **options)
    # Only a batch of one may hold a line feed inside.
    return [event for record in records for event in made.decode(batch_of([record])).events]


def test_a_row_has_its_values_under_the_names_of_the_columns() -> None:
    columns = ["time", "type", "user", "src_ip", "room"]
    one, two, text, more = events(
        "csv",
        b'2023-11-14T22:00:00Z,Door Opened,"Ada ""A"" L",10.0.0.1,"1\t2"',
        b"2023-11-14 23:00:00,Door Closed,bob",
        b"Traceback (most recent call last):",
        b"2023-11-14T22:00:00Z,Door Opened,eve,,3,unnamed\r",
        columns=columns, timezone="Europe/Berlin",
    )  # fmt: skip
    assert (one.type, one.time, one.actor.name) == (
        "Door Opened", "2023-11-14T22:00:00Z", 'Ada "A" L',
    )  # fmt: skip
    assert one.actor.address == "10.0.0.1"
    assert attributes_of(one) == {"room": "1\t2"}
    assert (two.time, two.actor.name, attributes_of(two)) == (
        "2023-11-14T23:00:00+01:00", "bob", {},
    )  # fmt: skip
    assert (text.type, text.message) == (UNPARSED, "Traceback (most recent call last):")
    assert attributes_of(more) == {"src_ip": "", "room": "3", "column6": "unnamed"}


def test_a_row_may_have_line_feeds_and_other_separators() -> None:
    (event,) = events("csv", b"'a;\nb';x", columns=["message", "user"], delimiter=";", quote="'")
    assert (event.message, event.actor.name) == ("a;\nb", "x")


def test_what_a_header_line_made_of_a_row_is_read_by_its_names() -> None:
    event, torn = events("csv", b'{"type":"Login","user":"ada","room":"1"}', b'"open,1')
    assert (event.type, event.actor.name, attributes_of(event)) == ("Login", "ada", {"room": "1"})
    assert (torn.type, torn.message) == (UNPARSED, '"open,1')


def test_a_pattern_takes_a_record_apart_as_a_whole() -> None:
    pattern = (
        r"(?s)(?P<time>\S+) (?P<actor_name>\S+)(?: from (?P<src_ip>\S+))? "
        r"(?P<type>\w+): (?P<message>.*)"
    )
    one, two, other = events(
        "regex",
        b"2023-11-14T22:00:00Z ada from 10.0.0.1 Login: ok\n  more",
        b"2023-11-14T22:00:00Z b\xe9 Logout: \xff",
        b"# 2023-11-14T22:00:00Z ada Login ok",
        pattern=pattern,
    )
    assert (one.type, one.actor.name, one.actor.address) == ("Login", "ada", "10.0.0.1")
    assert (one.message, one.time) == ("ok\n  more", "2023-11-14T22:00:00Z")
    assert (two.actor.name, two.actor.address, two.message) == ("b\ufffd", None, "\ufffd")
    assert other.type == UNPARSED


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        (r"(?P<a>x)\1", "no back-references"),
        (r"(?P<a>x)(?=y)", "no look-around"),
        (r"(?P<a>x", "missing"),
        (r"x+", "no named group"),
        ("", "at least 1 character"),
    ],
)
def test_a_pattern_that_is_none_is_refused_with_the_reason(pattern: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        RegexOptions(pattern=pattern)


def test_without_its_package_a_pattern_is_refused_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(type(REGEX), "missing", lambda _: True)
    with pytest.raises(ValueError, match=r"pip install 'siemrelay\[regex\]'"):
        LinearPattern("a")


def test_a_pattern_that_would_take_for_ever_elsewhere_takes_linear_time() -> None:
    pattern = LinearPattern(r"(?P<a>(?:a+)+)b")
    assert pattern.groups("a" * 100_000) is None
    assert not LinearPattern(r"(?:x+x+)+y").is_in(b"x" * 100_000)


@given(records=st.lists(st.binary(max_size=30).map(lambda r: r.replace(b"\n", b" ")), min_size=1))
def test_rows_of_any_bytes_give_the_event_that_each_gives_alone(records: list[bytes]) -> None:
    columns = ["type", "user", "message"]
    kind = registry.DECODERS["csv"]
    made = kind.build(BUILT_IN["generic"].spellings, EVERYTHING, Catalogue(), columns=columns)
    together = made.decode(batch_of(records)).events
    for record, event in zip(records, together, strict=True):
        (alone,) = events("csv", record, columns=columns)
        shown = [(e.type, e.actor, e.message, attributes_of(e)) for e in (event, alone)]
        assert shown[0] == shown[1]
