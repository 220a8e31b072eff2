"""Times as CEF, LEEF and devices write them, and what an event gets when one cannot be read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay import registry
from siemrelay.core.event import FIELDS, AuditEvent, Batch, attributes_of
from siemrelay.decoders.times import MONTHS, time_by_pattern, time_of, written_time
from tests.support.events.products import CATALOGUE, GENERIC

RECEIVED = datetime(2026, 11, 28, 12, 0, 0, tzinfo=UTC)
BERLIN = timezone(timedelta(hours=1))


def only(record: str, decoder: str = "syslog", **options: Any) -> AuditEvent:
    made = registry.DECODERS[decoder].build(
        GENERIC, frozenset({*FIELDS, "attributes"}), CATALOGUE, **options
    )
    batch = Batch(1, 1, "devices", RECEIVED.timestamp(), record.encode() + b"\n")
    (event,) = made.decode(batch).events
    return event


@pytest.mark.parametrize(
    ("said", "time"),
    [
        # ArcSight CEF implementation standard, revision 26: date formats
        ("Nov 20 2026 08:00:00.123 UTC", "2026-11-20T08:00:00.123Z"),
        ("Nov 20 2026 08:00:00.123", "2026-11-20T08:00:00.123+01:00"),
        ("Nov 20 2026 08:00:00 EST", "2026-11-20T08:00:00-05:00"),
        ("Nov 20 2026 08:00:00", "2026-11-20T08:00:00+01:00"),
        ("Nov 20 08:00:00.123 UTC", "2026-11-20T08:00:00.123Z"),
        ("Nov 20 08:00:00 GMT+02:00", "2026-11-20T08:00:00+02:00"),
        ("Nov 20 08:00:00", "2026-11-20T08:00:00+01:00"),
        ("Dec 20 08:00:00", "2025-12-20T08:00:00+01:00"),
        ("NOV 20 2026 08:00:00", "2026-11-20T08:00:00+01:00"),
        # others that devices write
        ("Fri Nov 20 08:00:00 2026", "2026-11-20T08:00:00+01:00"),
        ("Fri, 20 Nov 2026 08:00:00 +0530", "2026-11-20T08:00:00+05:30"),
        ("20/Nov/2026:08:00:00 +0000", "2026-11-20T08:00:00Z"),
        ("2026/11/20 08:00:00", "2026-11-20T08:00:00+01:00"),
        ("2026-11-20 08:00:00 -0500", "2026-11-20T08:00:00-05:00"),
        ("2026-11-20 08:00:00 CET", "2026-11-20T08:00:00+01:00"),
        # without separators: MariaDB's audit log, LDAP's generalized time, ISO 8601's basic form
        ("20261120 08:00:00", "2026-11-20T08:00:00+01:00"),
        ("20261120080000Z", "2026-11-20T08:00:00Z"),
        ("20261120080000.123456Z", "2026-11-20T08:00:00.123456Z"),
        ("20261120080000+0100", "2026-11-20T08:00:00+01:00"),
        ("20261120T080000Z", "2026-11-20T08:00:00Z"),
        ("20261120T080000.5", "2026-11-20T08:00:00.5+01:00"),
        # no times
        ("Feb 30 2026 08:00:00", None), ("Nov 20 2026 25:00:00", None), ("Nov 20 2026", None),
        ("Nov 20 2026 08:00:00 nowhere", None), ("2026-11/20 08:00:00", None),
        ("Nov 20 2026 08:00:00" + " " * 60, None), ("20261320 08:00:00", None),
        ("20261120 080000 0", None), ("20261120T250000Z", None),
    ],
)  # fmt: skip
def test_a_time_that_names_the_month_is_read_in_its_zone_or_the_devices(
    said: str, time: str | None
) -> None:
    assert time_of(said, RECEIVED, BERLIN) == time


def test_a_time_without_a_year_is_none_where_nobody_knows_when_it_came() -> None:
    assert time_of("Nov 20 08:00:00") is None


@given(
    st.datetimes(datetime(2001, 1, 1), datetime(2200, 1, 1)),
    st.timedeltas(timedelta(days=-300), timedelta(hours=23)),
)
def test_a_year_left_out_is_found_again_for_a_record_up_to_300_days_old(
    received: datetime, age: timedelta
) -> None:
    moment = (received + age).replace(microsecond=0)
    month = list(MONTHS)[moment.month - 1]
    stamp = (month, str(moment.day), moment.strftime("%H:%M:%S"))
    found = written_time(stamp, received.replace(tzinfo=UTC), UTC)
    assert found == f"{moment.isoformat()}Z"


@pytest.mark.parametrize(
    ("said", "pattern", "time"),
    [
        ("Nov 20 2026 10:00:00", "MMM dd yyyy HH:mm:ss", "2026-11-20T10:00:00Z"),
        ("Nov 20 2026 10:14:59 CET", "MMM dd yyyy HH:mm:ss z", "2026-11-20T10:14:59+01:00"),
        ("2026-11-20T10:00:00.123+0200", "yyyy-MM-dd'T'HH:mm:ss.SSSZ",
         "2026-11-20T10:00:00.123+02:00"),
        ("20.11.2026 10:00", "dd.MM.yyyy HH:mm", "2026-11-20T10:00:00Z"),
        ("11/20/2026 01:02:03 PM", "MM/dd/yyyy hh:mm:ss a", "2026-11-20T13:02:03Z"),
        ("12:02:03 AM 1/2/2026", "hh:mm:ss a M/d/yyyy", "2026-01-02T00:02:03Z"),
        ("Fri, November 20, 2026 10:00:00", "EEE, MMMM dd, yyyy HH:mm:ss", "2026-11-20T10:00:00Z"),
        ("20 10:00:00 Nov", "dd HH:mm:ss MMM", "2026-11-20T10:00:00Z"),
        ("2026-13-01", "yyyy-MM-dd", None),
        ("week 47", "'week' ww", None),
        ("10 10", "dd dd", None),
        ("x", "[(", None),
        ("x" * 100, "'" + "x" * 100 + "'", None),
    ],
)  # fmt: skip
def test_leefs_time_is_read_by_the_pattern_beside_it(
    said: str, pattern: str, time: str | None
) -> None:
    found = time_by_pattern(said, pattern)
    assert (found and time_of(found, RECEIVED)) == time


@given(st.text(max_size=70), st.text("yMdHhmsSazZXE'GwWDkK. -:/", max_size=70))
def test_no_pattern_and_no_text_break_the_reading(said: str, pattern: str) -> None:
    found = time_by_pattern(said, pattern)
    assert found is None or isinstance(time_of(found, RECEIVED), str | None)


FORTIGATE = (
    '<190>date=2026-11-20 time=12:23:47 devname="fw1" type="event" subtype="vpn" '
    'level="information" tz="-0500" remip=8.8.8.6 user="N/A" dstip=10.0.0.1 '
    'msg="SSL new connection" status="failure"'
)


@pytest.mark.parametrize(
    ("record", "time"),
    [
        ("<14>1 2026-11-20T10:00:00Z h - - - - CEF:0|v|p|1|7|Login|5|rt=Nov 20 2026 08:00:00 UTC",
         "2026-11-20T08:00:00Z"),
        ("<14>1 2026-11-20T10:00:00Z h - - - - CEF:0|v|p|1|7|Login|5|rt=Nov 20 2026 08:00:00",
         "2026-11-20T08:00:00+01:00"),
        ("LEEF:2.0|v|p|1|e|^|devTime=20.11.2026 08:00:00^devTimeFormat=dd.MM.yyyy HH:mm:ss",
         "2026-11-20T08:00:00+01:00"),
        ("LEEF:1.0|v|p|1|e|devTime=Nov 20 2026 08:00:00\tsev=3", "2026-11-20T08:00:00+01:00"),
        (FORTIGATE, "2026-11-20T12:23:47-05:00"),
        ("<134>Nov 20 10:15:00 fw date=2026-11-20 time=10:14:59 timezone=\"CET\" device=SFW",
         "2026-11-20T10:14:59+01:00"),
        ("<134>1 2026-11-20 17:25:25 h CheckPoint 1 - [action:\"Accept\"; src:\"10.0.0.1\"]",
         "2026-11-20T17:25:25+01:00"),
    ],
)  # fmt: skip
def test_a_devices_own_time_is_the_events(record: str, time: str) -> None:
    event = only(record, timezone="+01:00")
    assert event.time == time
    assert "siemrelay.time_from" not in attributes_of(event)


@pytest.mark.parametrize(
    ("record", "time", "place"),
    [
        ("<14>1 2026-11-20T10:00:00Z h - - - - CEF:0|v|p|1|7|Login|5|rt=soon",
         "2026-11-20T10:00:00Z", "header"),
        ("<14>1 2026-11-20T10:00:00Z h - - - - a=1 time=soon", "2026-11-20T10:00:00Z", "header"),
        ('<14>1 2026-11-20T10:00:00Z h - - - - {"a":1,"time":"soon"}', "2026-11-20T10:00:00Z",
         "header"),
        ("CEF:0|v|p|1|7|Login|5|rt=soon", "2026-11-28T12:00:00.000Z", "arrival"),
    ],
)  # fmt: skip
def test_a_time_that_cannot_be_read_gives_way_to_the_headers_then_to_the_arrival(
    record: str, time: str, place: str
) -> None:
    event = only(record)
    assert event.time == time
    attributes = attributes_of(event)
    assert (attributes["time"], attributes["siemrelay.time_from"]) == ("soon", place)


def test_a_header_whose_day_is_none_leaves_what_it_says_in_the_event() -> None:
    event = only("<13>Feb 30 10:00:00 h app: x", decoder="syslog")
    attributes = attributes_of(event)
    assert event.time == "2026-11-28T12:00:00.000Z"
    assert (attributes["time"], attributes["siemrelay.time_from"]) == (
        "Feb 30 10:00:00", "arrival",
    )  # fmt: skip


def test_a_senders_own_word_for_where_its_time_is_from_does_not_count() -> None:
    event = only('{"time":"soon","siemrelay.time_from":"body"}')
    assert attributes_of(event)["siemrelay.time_from"] == "arrival"


def test_a_firewalls_pairs_fill_the_events_fields_and_nothing_names_nobody() -> None:
    event = only(FORTIGATE)
    assert (event.actor.name, event.actor.address) == (None, "8.8.8.6")
    assert (event.target.name, event.message) == ("10.0.0.1", "SSL new connection")
    assert (event.type, event.severity, event.outcome) == ("event", 2, "failure")
    assert attributes_of(event)["user"] == "N/A"


def test_sonicwalls_addresses_stand_without_port_and_interface() -> None:
    event = only(
        'id=firewall sn=0017 time="2026-11-20 07:00:00 UTC" fw=1.1.1.1 pri=6 m=29 '
        'msg="Administrator login allowed" usr="admin" src=10.1.1.1:443:X1 dst=10.1.1.2::X0:gw'
    )
    assert event.time == "2026-11-20T07:00:00Z"
    assert (event.actor.name, event.actor.address) == ("admin", "10.1.1.1")
    assert event.target.name == "10.1.1.2"
    attributes = attributes_of(event)
    assert (attributes["src_port"], attributes["src_interface"]) == ("443", "X1")
    assert attributes["dst_interface"] == "X0"


def test_check_points_data_without_equals_signs_fills_the_events_fields() -> None:
    event = only(
        '<134>1 2026-11-20T02:58:25Z fw CheckPoint 22103 - [action:"Accept"; src_user_name:"bob"; '
        r'src:"10.0.0.1"; dst:"10.0.0.2"; rule:"a \"quoted\"; name"]'
    )
    assert (event.type, event.actor.name, event.actor.address) == ("Accept", "bob", "10.0.0.1")
    assert attributes_of(event)["rule"] == 'a "quoted"; name'


@pytest.mark.parametrize(
    "text", ['[a:"1"; b:"2"] more', '[a:"1"; b:2]', '[a:"1"]', "[]", '[a:"1"; ']
)
def test_what_only_begins_as_check_points_data_is_text(text: str) -> None:
    assert only(f"<13>Nov 20 10:00:00 h app: {text}").type == "app"


def test_esxi_structured_data_without_quotes_is_structured_data() -> None:
    event = only(
        "<166>1 2026-11-20T15:31:53Z esx1 Hostd 2 - [Originator@6876 sub=Vimsvc user=root] x"
    )
    assert attributes_of(event)["syslog"]["Originator@6876"] == {"sub": "Vimsvc", "user": "root"}
    assert event.message == "x"


@pytest.mark.parametrize(("option", "type_"), [(False, "Untyped Record"), (True, "imfile-audit")])
def test_a_tag_without_a_colon_is_one_only_where_the_source_says_so(
    option: bool, type_: str
) -> None:
    record = "<133>Nov 20 10:00:00 host imfile-audit user logged in"
    event = only(record, tag_without_colon=option)
    assert event.type == type_
    assert event.message == ("user logged in" if option else "imfile-audit user logged in")
