"""RFC 5424 and RFC 3164: read back by the grammar of the RFC, and by syslog-rfc5424-parser."""

from __future__ import annotations

import json
import re
import warnings
from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import assume, given

from siemrelay.core.event import AuditEvent, Selection, attributes_of
from siemrelay.formats.rfc3164 import Rfc3164, Rfc3164Options
from siemrelay.formats.rfc5424 import Rfc5424, Rfc5424Options
from siemrelay.formats.syslog_header import FACILITIES
from siemrelay.formats.writing.attributes import unique_names
from siemrelay.proof.leaf import leaf_of
from siemrelay.registry import FORMATS
from tests.support.events.formats import HOST, PLAIN, alone, carried, made
from tests.support.events.readers import parse_rfc5424, unescaped
from tests.support.events.strategies import EVENTS, selection_of
from tests.support.examples import examples

with warnings.catch_warnings():
    # What it parses with is older than the Python that warns of it.
    warnings.simplefilter("ignore", DeprecationWarning)
    from syslog_rfc5424_parser import SyslogMessage


def expected_params(event: AuditEvent) -> list[tuple[str, str]]:
    own = {
        "sequence": "7", "id": event.id, "type": event.type, "category": event.category,
        "severity": str(event.severity), "outcome": event.outcome,
        "actor.name": event.actor.name, "actor.id": event.actor.id,
        "actor.address": event.actor.address, "target.type": event.target.type,
        "target.name": event.target.name, "target.id": event.target.id,
    }  # fmt: skip
    names = [
        re.sub(r'[^!-~]|[\]="]', "_", name)[:21] or "_" for name in attributes_of(event)
    ]  # fmt: skip
    attributes = [
        (f"attributes.{name}",
         value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in zip(
            unique_names(names, (), 21), attributes_of(event).values(), strict=True
        )
    ]  # fmt: skip
    pairs = [*((name, value) for name, value in own.items() if value), *attributes]
    return [(name, carried(value)) for name, value in pairs]


def flat(event: AuditEvent) -> AuditEvent:
    return msgspec.structs.replace(
        event,
        attributes={k: v for k, v in attributes_of(event).items() if not isinstance(v, dict)},
    )


@examples(200)
@given(event=EVENTS.map(flat))
def test_rfc5424_is_read_back_as_it_went_in(event: AuditEvent) -> None:
    header, params, message = parse_rfc5424(alone(Rfc5424(Rfc5424Options(), HOST), event))
    assert header[1:] == [event.time, HOST, "siemrelay", "-",
                          re.sub(r"[^!-~]", "", event.type)[:32] or "-"]  # fmt: skip
    assert params == expected_params(event)
    assert message == carried(event.message or event.type)


@examples(50)
@given(event=EVENTS.map(flat))
def test_an_independent_parser_reads_the_same(event: AuditEvent) -> None:
    r"""syslog-rfc5424-parser leaves the escapes in, keeps the last of equal names, and takes the
    quote of a value that ends with a backslash (`a\\"`) for an escaped one: not asked about it."""
    line = alone(Rfc5424(Rfc5424Options(), HOST), event)
    assume('\\\\"' not in line)
    read = SyslogMessage.parse(line)
    header, params, message = parse_rfc5424(line)
    assert read.facility.value * 8 + read.severity.value == int(header[0])
    assert [read.timestamp, read.hostname, read.appname] == header[1:4]
    assert (read.procid, read.msgid or "-") == (None, header[5])
    assert {n: unescaped(v) for n, v in read.sd["event@32473"].items()} == dict(params)
    assert read.msg == message


@pytest.mark.parametrize("level", range(11))
def test_severity_and_facility_make_the_priority(level: int) -> None:
    event = msgspec.structs.replace(PLAIN, severity=level)
    expected = {0: 6, 1: 6, 2: 6, 3: 6, 4: 4, 5: 4, 6: 4, 7: 3, 8: 3, 9: 2, 10: 2}[level]
    for facility in ("kern", "audit", "local7"):
        number = FACILITIES.index(facility) * 8 + expected
        for name in ("syslog", "rfc3164"):
            assert alone(made(name, facility=facility), event).startswith(f"<{number}>")
    assert alone(made("syslog"), event).startswith(f"<{13 * 8 + expected}>1 ")


def test_the_parts_of_a_syslog_message() -> None:
    assert alone(Rfc5424(Rfc5424Options(enterprise_id=99), HOST), PLAIN) == (
        "<108>1 2024-03-01T08:00:00.123Z relay.example.com siemrelay - AccountProvisioned "
        '[event@99 sequence="7" id="e1" type="Account Provisioned" category="account" severity="5" '
        'outcome="success" actor.name="Ada Lovelace" actor.id="u1" actor.address="10.0.0.1" '
        'target.type="account" target.name="svc" target.id="t1" attributes.region="eu"] done'
    )
    assert alone(Rfc3164(Rfc3164Options(timezone="UTC"), HOST), PLAIN) == (
        "<108>Mar  1 08:00:00 relay.example.com siemrelay: Account Provisioned: done "
        '(id="e1" time="2024-03-01T08:00:00.123Z" category="account" severity="5" '
        'outcome="success" actor.name="Ada Lovelace" actor.id="u1" actor.address="10.0.0.1" '
        'target.type="account" target.name="svc" target.id="t1")'
    )


def test_attributes_in_structured_data_are_flat_and_named_by_the_rules() -> None:
    event = msgspec.structs.replace(PLAIN, attributes={
        "a": {"b": {"c": {"d": {"e": 1}}}}, "list": [1, "x"], "none": None, "yes": True, "n": -0.5,
        'na me="]': "v]", "": "empty", "x" * 40: 1, "é": 1, "empty": {},
    })  # fmt: skip
    line = alone(Rfc5424(Rfc5424Options(), HOST), event)
    assert line.split('target.id="t1" ')[1] == (
        'attributes.a.b.c.d="{\\"e\\": 1}" attributes.list="[1, \\"x\\"\\]" attributes.none="null" '
        'attributes.yes="true" attributes.n="-0.5" attributes.na_me___="v\\]" attributes._="empty" '
        f'attributes.{"x" * 21}="1" attributes.__2="1" attributes.empty="{{}}"] done'
    )


@pytest.mark.parametrize(
    ("time", "zone", "stamp"),
    [
        ("2024-03-01T08:00:00.999Z", "UTC", "Mar  1 08:00:00"),
        ("2024-12-31T23:30:00Z", "Europe/Berlin", "Jan  1 00:30:00"),
        ("2024-07-14T12:00:00+02:00", "America/New_York", "Jul 14 06:00:00"),
        ("0001-01-01T00:00:00+14:00", "UTC", "Jan  1 00:00:00"),
        ("9999-12-31T23:59:59-11:30", "Asia/Tokyo", "Dec 31 23:59:59"),
    ],
)
def test_rfc3164_has_english_months_a_padded_day_and_the_chosen_zone(
    time: str, zone: str, stamp: str
) -> None:
    line = alone(made("rfc3164", timezone=zone), msgspec.structs.replace(PLAIN, time=time))
    assert re.fullmatch(r"<\d+>(.{15}) (\S+) (\S+): .*", line, re.DOTALL)
    assert line[5:20] == stamp


@given(event=EVENTS)
def test_rfc3164_is_read_back_as_it_went_in(event: AuditEvent) -> None:
    line = alone(Rfc3164(Rfc3164Options(timezone="Asia/Kolkata"), HOST), event)
    match = re.fullmatch(
        r"<(\d{1,3})>([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d) (\S+) (\w+): (.*)", line
    )
    assert match is not None
    pri, stamp, host, tag, text = match.groups()
    assert (int(pri) // 8, host, tag) == (13, HOST, "siemrelay")
    assert text.startswith(carried(event.type))
    moment = datetime.fromisoformat(event.time or "")
    if 2 < moment.year < 9998:
        there = moment.astimezone(ZoneInfo("Asia/Kolkata"))
        assert datetime.strptime(f"{there.year:04} {stamp}", "%Y %b %d %H:%M:%S") == there.replace(
            tzinfo=None, microsecond=0
        )


def test_a_host_or_name_that_no_header_can_hold_is_made_to_fit() -> None:
    options = {"hostname": "höst name\n" + "x" * 300, "app_name": "[my app]\n" + "y" * 90}
    read = SyslogMessage.parse(alone(made("syslog", **options), PLAIN))
    assert read.hostname == ("hstname" + "x" * 300)[:255]
    assert read.appname == ("[myapp]" + "y" * 90)[:48]
    line = alone(made("rfc3164", **options), PLAIN)
    assert line.split(" ")[-1] != ""
    assert f" {('myapp' + 'y' * 90)[:32]}: " in line
    assert alone(made("syslog", hostname="\u00fc"), PLAIN).split(" ")[2] == "-"


@pytest.mark.parametrize("inner", [name for name, kind in FORMATS.items() if kind.headers])
def test_a_header_stands_before_the_very_message(inner: str) -> None:
    record = b'{"type":"as received"}'
    (body,) = made(inner).encode(selection_of([PLAIN], [record]))
    tag = b"siemrelay: " if FORMATS[inner].tag else b""
    (bsd,) = made(inner, "rfc3164", timezone="UTC").encode(selection_of([PLAIN], [record]))
    assert bsd == b"<108>Mar  1 08:00:00 relay.example.com " + tag + body
    (ietf,) = made(inner, "rfc5424").encode(selection_of([PLAIN], [record]))
    assert ietf == (
        b"<108>1 2024-03-01T08:00:00.123Z relay.example.com siemrelay - AccountProvisioned - "
        + body
    )


@pytest.mark.parametrize(
    "kind",
    [
        "CEF:0|a|b|c|d|e|f|siemrelayN=ffffffffff:7 x",
        "LEEF:2.0|a|b|c|d|^|siemrelayN=ffffffffff:7",
        '[event@1 sequence="1" n="ffffffffff:7"]',
        '{"siemrelay":{"n":"ffffffffff:7"}}',
        'x n="ffffffffff:7")',
    ],
)
@pytest.mark.parametrize("name", ["syslog", "rfc3164"])
def test_a_type_that_looks_like_another_format_has_the_number_of_its_message(
    name: str, kind: str
) -> None:
    decoded = selection_of([msgspec.structs.replace(PLAIN, type=kind)]).decoded
    (line,) = made(name).encode(Selection(decoded, number="abcdefgh22:1"))
    assert leaf_of(line)[1:] == ("abcdefgh22", 1)
