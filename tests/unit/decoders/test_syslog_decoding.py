"""Syslog records as they are met in the field, and whatever else may come in their place."""
# ruff: noqa: E501  (records are as long as they are)

from __future__ import annotations

import gzip
import zlib
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from siemrelay import registry
from siemrelay.core.event import FIELDS, AuditEvent, Batch, DecodedBatch, Selection, attributes_of
from siemrelay.core.event_types import UNPARSED, UNTYPED
from siemrelay.decoders.syslog.decoder import SyslogDecoderOptions
from siemrelay.decoders.syslog.host import payload_with_host, with_host
from siemrelay.products.product import BUILT_IN
from tests.support.events.products import CATALOGUE, GENERIC

RECEIVED = datetime(2026, 1, 15, 12, 0, 0, tzinfo=UTC).timestamp()
EVERYTHING = frozenset({*FIELDS, "attributes"})


def decoded(*records: bytes, decoder: str = "syslog") -> DecodedBatch:
    build = registry.DECODERS[decoder].build
    made = build(GENERIC, EVERYTHING, CATALOGUE)
    payload = b"".join(record + b"\n" for record in records)
    return made.decode(Batch(1, len(records), "devices", RECEIVED, payload))


def only(record: bytes, decoder: str = "syslog") -> AuditEvent:
    (event,) = decoded(record, decoder=decoder).events
    return event


def summary(event: AuditEvent) -> dict[str, Any]:
    about = attributes_of(event).get("syslog", {})
    return {
        "time": event.time, "type": event.type, "severity": event.severity,
        "message": event.message, "host": about.get("host"), "pid": about.get("pid"),
    }  # fmt: skip


OCT = "2025-10-11T22:14:15Z"
NOW = "2026-01-15T12:00:00.000Z"


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        # RFC 5424's own examples and what senders make of it
        ("<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - 'su root' failed",
         ("2003-10-11T22:14:15.003Z", "ID47", 8, "'su root' failed", "mymachine.example.com", None)),
        ("<34>1 2003-10-11T22:14:15.003Z mymachine su - ID47 - \ufeff'su root' failed",
         ("2003-10-11T22:14:15.003Z", "ID47", 8, "'su root' failed", "mymachine", None)),
        ("<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time",
         ("2003-08-24T05:14:15.000003-07:00", "myproc", 3, "%% It's time", "192.0.2.1", "8710")),
        ("<165>1 2003-10-11T22:14:15.003Z m evntslog - ID47 [e@1 iut=\"3\"][x@2 a=\"b\"] An event",
         ("2003-10-11T22:14:15.003Z", "ID47", 3, "An event", "m", None)),
        ("<165>1 2003-10-11T22:14:15.003Z m evntslog - ID47 [e@1 iut=\"3\"]",
         ("2003-10-11T22:14:15.003Z", "ID47", 3, "", "m", None)),
        ("<13>1 - - - - - - only text", (NOW, UNTYPED, 3, "only text", None, None)),
        ("<13>1 - - - - - -", (NOW, UNTYPED, 3, "", None, None)),
        # RFC 3164 and its deviations
        ("<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
         (OCT, "su", 8, "'su root' failed for lonvick on /dev/pts/8", "mymachine", None)),
        ("<13>Feb  5 17:32:18 10.0.0.99 Use the BFG!",
         ("2025-02-05T17:32:18Z", UNTYPED, 3, "Use the BFG!", "10.0.0.99", None)),
        ("<38>Jan  5 08:00:01 box sshd[4711]: Accepted password for ada from 10.1.2.3",
         ("2026-01-05T08:00:01Z", "sshd", 2, "Accepted password for ada from 10.1.2.3", "box", "4711")),
        ("<38>Oct 11 22:14:15 sshd[4711]: no host name",
         (OCT, "sshd", 2, "no host name", None, "4711")),
        ("<38>Oct 11 2025 22:14:15 box app: year behind the day",
         (OCT, "app", 2, "year behind the day", "box", None)),
        ("<38>2025 Oct 11 22:14:15 box app: year first", (OCT, "app", 2, "year first", "box", None)),
        ("<38>Oct 11 22:14:15.123 box app: fraction",
         ("2025-10-11T22:14:15.123Z", "app", 2, "fraction", "box", None)),
        ("<38>Oct 11 22:14:15 CEST box app: zone by name",
         ("2025-10-11T22:14:15+02:00", "app", 2, "zone by name", "box", None)),
        ("<38>Oct 11 22:14:15 +0530 box app: zone as offset",
         ("2025-10-11T22:14:15+05:30", "app", 2, "zone as offset", "box", None)),
        ("<38>2025-10-11T22:14:15.5+02:00 box app[7]: ISO time",
         ("2025-10-11T22:14:15.5+02:00", "app", 2, "ISO time", "box", "7")),
        ("<38>2025-10-11T22:14:15Z box app: ISO time", (OCT, "app", 2, "ISO time", "box", None)),
        ("<38>2025-10-11 22:14:15 box app: ISO with a space",
         (OCT, "app", 2, "ISO with a space", "box", None)),
        ("<189>29: *Oct 11 22:14:15.310: %SYS-5-CONFIG_I: Configured from console by vty0",
         ("2025-10-11T22:14:15.310Z", "SYS-5-CONFIG_I", 3, "Configured from console by vty0", None, None)),
        ("<189>000123: Oct 11 22:14:15 UTC: %LINK-3-UPDOWN: Interface Gi0/1, changed state to up",
         (OCT, "LINK-3-UPDOWN", 3, "Interface Gi0/1, changed state to up", None, None)),
        ("<166>Oct 11 2025 22:14:15: %ASA-6-302013: Built inbound TCP connection",
         (OCT, "ASA-6-302013", 2, "Built inbound TCP connection", None, None)),
        ("<166>Oct 11 2025 22:14:15 fw1 : %ASA-6-302013: Built",
         (OCT, "ASA-6-302013", 2, "Built", "fw1", None)),
        ("<189>55: 10.1.1.1: Oct 11 22:14:15: %SYS-5-CONFIG_I: origin-id ip",
         (OCT, "SYS-5-CONFIG_I", 3, "origin-id ip", "10.1.1.1", None)),
        ("<187>123456: router-1: 000456: *Oct 11 22:14:15.123 CET: %SYS-3-X: origin-id and sequence",
         ("2025-10-11T22:14:15.123+01:00", "SYS-3-X", 7, "origin-id and sequence", "router-1", None)),
        ("<189>456: 000123: Oct 11 22:14:15: %SYS-5-CONFIG_I: two numbers",
         (OCT, "SYS-5-CONFIG_I", 3, "two numbers", None, None)),
        ("<189>7: r1: 2025-10-11T22:14:15Z: %SYS-5-CONFIG_I: ISO time",
         (OCT, "SYS-5-CONFIG_I", 3, "ISO time", "r1", None)),
        ("<13>5: foo: 10 items", (NOW, UNTYPED, 3, "5: foo: 10 items", None, None)),
        ("<187>138076: RP/0/RP0/CPU0:Oct 11 22:14:15.227 EST: snmpd[1002]: %SNMP-SNMP-3-AUTH_FAIL : "
         "Received: x",
         ("2025-10-11T22:14:15.227-05:00", "SNMP-SNMP-3-AUTH_FAIL", 7, "Received: x", None, "1002")),
        ("<187>RP/0/RSP0/CPU0:Oct 11 22:14:15 UTC: SSHD_[65814]: %SECURITY-SSHD-6-INFO_SUCCESS : ok",
         (OCT, "SECURITY-SSHD-6-INFO_SUCCESS", 7, "ok", None, "65814")),
        ("<187>3408: CLC 6/0: Oct 11 22:14:15 UTC: %PKI-3-INVALID: of a line card",
         (OCT, "PKI-3-INVALID", 7, "of a line card", None, None)),
        ("<14>1234: r1: Oct 11 22:14:15 gmt: %IOSXE-6-PLATFORM: F0: cpp_cp: zone in small letters",
         (OCT, "IOSXE-6-PLATFORM", 2, "F0: cpp_cp: zone in small letters", "r1", None)),
        ("<189>: 2025 Oct 11 22:14:15 UTC: %ETHPORT-5-IF_UP: NX-OS",
         (OCT, "ETHPORT-5-IF_UP", 3, "NX-OS", None, None)),
        ("<190>123030: r1: %SYS-5-LOGGINGHOST_STARTSTOP: no time",
         (NOW, "SYS-5-LOGGINGHOST_STARTSTOP", 2, "no time", "r1", None)),
        ("<189>45: 00:00:46: %LINK-3-UPDOWN: time since the start",
         (NOW, "LINK-3-UPDOWN", 3, "time since the start", None, None)),
        ("<189>45: 1w2d: %LINK-3-UPDOWN: the same in weeks",
         (NOW, "LINK-3-UPDOWN", 3, "the same in weeks", None, None)),
        ("Oct 11 2025 22:14:15 : %ASA-6-302016 Teardown",
         (OCT, "ASA-6-302016", 3, "Teardown", None, None)),
        ("<189>65536: ", (NOW, UNTYPED, 3, "65536:", None, None)),
        ("<38>OCT 11 22:14:15 box app: month in capitals",
         (OCT, "app", 2, "month in capitals", "box", None)),
        ("1 2025-10-11T22:14:15Z box app 12 ID47 - RFC 5424 without PRI",
         (OCT, "ID47", 3, "RFC 5424 without PRI", "box", "12")),
        ("<134>1 2025-10-11 22:14:15 box CheckPoint 13752 - no T in the time",
         (OCT, "CheckPoint", 2, "no T in the time", "box", "13752")),
        ("<13>Oct 11 22:14:15 box app: %SYS-5-CONFIG_I: text after a tag is text",
         (OCT, "app", 3, "%SYS-5-CONFIG_I: text after a tag is text", "box", None)),
        ("<166>:Oct 11 22:14:15 UTC: %ASA-session-6-302013: EMBLEM",
         (OCT, "ASA-session-6-302013", 2, "EMBLEM", None, None)),
        ("<166>%ASA-6-302013: no time", (NOW, "ASA-6-302013", 2, "no time", None, None)),
        ("%ASA-6-302013: no time and no PRI", (NOW, "ASA-6-302013", 3, "no time and no PRI", None, None)),
        ("<30>Sat Oct 11 22:14:15 2025 box app: as ctime", (OCT, "app", 2, "as ctime", "box", None)),
        ("<134>1 1563249630.774247467 MX84 flows src=10.0.0.1 dst=10.0.0.2",
         ("2019-07-16T04:00:30.774Z", UNTYPED, 2, "flows src=10.0.0.1 dst=10.0.0.2", "MX84", None)),
        ("<190>1234: xr1 RP/0/RSP0/CPU0:Oct 11 22:14:15 UTC: SSHD_[658]: %SECURITY-SSHD-6-OK : IOS-XR's host",
         (OCT, "SECURITY-SSHD-6-OK", 2, "IOS-XR's host", "xr1", "658")),
        ("<190>1234: xr1 0/RP0/ADMIN0:Oct 11 22:14:15 UTC: sm[658]: %INFRA-SM-6-OK : of its administration",
         (OCT, "INFRA-SM-6-OK", 2, "of its administration", "xr1", "658")),
        ("<190>RP/0/RSP0/CPU0:Oct 11 22:14:15 : config[657]: %MGBL-CONFIG-6-DB_COMMIT : no zone",
         (OCT, "MGBL-CONFIG-6-DB_COMMIT", 2, "no zone", None, "657")),
        ("<190>RP/0/RSP0/CPU0:Oct 11 22:14:15 AEDT: config[657]: %MGBL-CONFIG-6-DB_COMMIT : of the source's zone",
         (OCT, "MGBL-CONFIG-6-DB_COMMIT", 2, "of the source's zone", None, "657")),
        ("<189>7: *Oct 11 2025 22:14:15 WIB: %SYS-5-CONFIG_I: a zone is no type",
         (OCT, "SYS-5-CONFIG_I", 3, "a zone is no type", None, None)),
        ("<190>sw01.pdx01: 2025 Oct 11 22:14:15 UTC: %AUTHPRIV-6-SYSTEM_MSG: NX-OS's host",
         (OCT, "AUTHPRIV-6-SYSTEM_MSG", 2, "NX-OS's host", "sw01.pdx01", None)),
        ("<190>sw01: 2025 Oct 11 22:14:15 UTC: a program's tag",
         (NOW, "sw01", 2, "2025 Oct 11 22:14:15 UTC: a program's tag", None, None)),
        ("<189>2025 Oct 11 22:14:15 sw01 %$ VDC-1 %$ %ETHPORT-5-IF_UP: NX-OS's virtual device",
         (OCT, "ETHPORT-5-IF_UP", 3, "NX-OS's virtual device", "sw01", None)),
        ("<166>fw1 : %ASA-6-302013: host without time", (NOW, "ASA-6-302013", 2, "host without time", "fw1", None)),
        ("<166>fw1: %ASA-6-302013: text after a tag is text",
         (NOW, "fw1", 2, "%ASA-6-302013: text after a tag is text", None, None)),
        ("<13>app: no time at all", (NOW, "app", 3, "no time at all", None, None)),
        ("<13>just text", (NOW, UNTYPED, 3, "just text", None, None)),
        ("<13> Oct 11 22:14:15 box app: a space after PRI",
         (OCT, "app", 3, "a space after PRI", "box", None)),
        (" <13>Oct 11 22:14:15 box app: a space before", (OCT, "app", 3, "a space before", "box", None)),
        ("Oct 11 22:14:15 box app: no PRI, as in a file", (OCT, "app", 3, "no PRI, as in a file", "box", None)),
        ("<13>Oct 11 22:14:15 box app: NUL at the end\0", (OCT, "app", 3, "NUL at the end", "box", None)),
        ("<13>Oct 11 22:14:15 box app: CR at the end\r", (OCT, "app", 3, "CR at the end", "box", None)),
        ("\ufeff<13>Oct 11 22:14:15 box app: BOM first", (OCT, "app", 3, "BOM first", "box", None)),
        ("<13>Oct 11 22:14:15 fe80::1 app: an IPv6 host",
         (OCT, "app", 3, "an IPv6 host", "fe80::1", None)),
        ("<13>Feb 30 22:14:15 box app: no such day", (NOW, "app", 3, "no such day", "box", None)),
        ("<13>Oct 11 22:14:15 box app:no space after the tag",
         (OCT, "app", 3, "no space after the tag", "box", None)),
        ("<13>Oct 11 22:14:15 box app[7]:nor after the process",
         (OCT, "app", 3, "nor after the process", "box", "7")),
        ("<13>Oct 11 22:14:15 box app[7] no colon after the process",
         (OCT, "app", 3, "no colon after the process", "box", "7")),
        ("<13>Oct 11 22:14:15 box http://a.example/ is no tag",
         (OCT, UNTYPED, 3, "http://a.example/ is no tag", "box", None)),
        ("<13>Oct 11 22:14:15 box word is no tag", (OCT, UNTYPED, 3, "word is no tag", "box", None)),
        ("<999>Oct 11 22:14:15 box app: PRI out of range",
         (NOW, UNTYPED, 3, "<999>Oct 11 22:14:15 box app: PRI out of range", None, None)),
        ("<13", (NOW, UNTYPED, 3, "<13", None, None)),
        ("no header, only text", (NOW, UNTYPED, 3, "no header, only text", None, None)),
        ("", (NOW, UNTYPED, 3, "", None, None)),
    ],
)  # fmt: skip
def test_a_header_with_common_deviations_is_understood(
    record: str, expected: tuple[Any, ...]
) -> None:
    assert tuple(summary(only(record.encode())).values()) == expected


@pytest.mark.parametrize(
    ("month", "year"), [("Dec 31", 2025), ("Jan 16", 2026), ("Jan 17", 2025), ("Jul 10", 2025)]
)
def test_the_year_that_is_not_said_is_the_last_one_that_is_at_most_a_day_ahead(
    month: str, year: int
) -> None:
    event = only(f"<13>{month} 10:00:00 box app: x".encode())
    assert event.time is not None
    assert event.time.startswith(str(year))


@pytest.mark.parametrize(
    ("zone", "stamp", "time"),
    [
        ("Europe/Berlin", "Jan 10 08:00:00", "2026-01-10T08:00:00+01:00"),
        ("Europe/Berlin", "Jul 10 08:00:00", "2025-07-10T08:00:00+02:00"),
        ("Europe/Berlin", "Jul 10 08:00:00 UTC", "2025-07-10T08:00:00Z"),
        ("Europe/Berlin", "2025-07-10T08:00:00.25", "2025-07-10T08:00:00.25+02:00"),
        ("Europe/Berlin", "2025-07-10T08:00:00Z", "2025-07-10T08:00:00Z"),
        ("-03:30", "Dec 31 23:59:59.5", "2025-12-31T23:59:59.5-03:30"),
        ("UTC", "Jan 10 08:00:00", "2026-01-10T08:00:00Z"),
    ],
)
def test_a_time_without_a_zone_is_in_the_devices_own(zone: str, stamp: str, time: str) -> None:
    made = registry.DECODERS["syslog"].build(GENERIC, EVERYTHING, CATALOGUE, timezone=zone)
    batch = Batch(1, 1, "devices", RECEIVED, f"<13>{stamp} box app: x\n".encode())
    (event,) = made.decode(batch).events
    assert event.time == time


@pytest.mark.parametrize("zone", ["Mars/Base", "", "../etc", "+2", "+99:99", "CET-"])
def test_a_zone_that_is_not_known_is_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="Europe/Berlin"):
        SyslogDecoderOptions(timezone=zone)


def test_structured_data_and_the_header_are_attributes() -> None:
    record = rb'<165>1 - host app 7 ID [a@1 x="1" y="q\"\\\]"][b] text'
    assert attributes_of(only(record)) == {
        "syslog": {
            "facility": 20, "severity": 5, "host": "host", "app": "app", "pid": "7",
            "msgid": "ID", "a@1": {"x": "1", "y": 'q"\\]'}, "b": {},
        }
    }  # fmt: skip


# As Log4j's RFC 5424 layout writes a StructuredDataMessage and the thread's context.
LOG4J = (
    b"<36>1 2025-11-28T19:00:41.450Z vm shop 7 audit "
    b'[login@32473 outcome="failure" src="10.1.1.1" user="bo\\"b" n="1"][mdc@18060 zone="a" user="x"]'
    b' login failed {"user":"eve"}'
)


@pytest.mark.parametrize("wanted", [EVERYTHING, frozenset({"actor.name", "message"})])
def test_declared_structured_data_has_the_fields_of_an_event(wanted: frozenset[str]) -> None:
    build = registry.DECODERS["syslog"].build
    made = build(GENERIC, wanted, CATALOGUE, structured_data=["login@*", "mdc@18060"])
    other = LOG4J.replace(b"login@32473", b"logout@32473").replace(b"mdc@18060", b"x@18060")
    lines = [LOG4J, other, b'<36>1 - vm shop 7 - [login@1 user="z"]']
    records = b"".join(record + b"\n" for record in lines)
    event, another, bare = made.decode(Batch(1, 3, "devices", RECEIVED, records)).events
    assert (event.type, event.outcome, event.actor.name) == ("audit", "failure", 'bo"b')
    assert event.message == 'login failed {"user":"eve"}'
    assert (another.outcome, another.actor.name) == ("unknown", None)
    assert (bare.actor.name, bare.message) == ("z", "")
    if "attributes" in wanted:
        assert event.actor.address == "10.1.1.1"
        syslog = attributes_of(event)["syslog"]
        assert (syslog["msgid"], "login@32473" in syslog, "mdc@18060" in syslog) == (
            "audit", False, False,
        )  # fmt: skip
        assert attributes_of(event)["n"] == "1"
        assert attributes_of(another)["syslog"]["logout@32473"]["src"] == "10.1.1.1"


def test_what_another_relay_writes_goes_before_declared_structured_data() -> None:
    made = registry.DECODERS["syslog"].build(GENERIC, EVERYTHING, CATALOGUE, structured_data=["*"])
    record = b'<36>1 - vm a - - [x@1 type="b" user="eve"][event@32473 type="a" actor.name="ada"] m'
    (event,) = made.decode(Batch(1, 1, "devices", RECEIVED, record + b"\n")).events
    assert (event.type, event.actor.name) == ("a", "ada")


CEF = (
    r"CEF:0|Acme|Gate|1.2|100|Door \| opened|High|rt=1767225600009 src=10.0.0.1 suser=Zoë M "
    r"msg=a\=b and\nmore cs1Label=Ticket cs1=CHG 42 outcome=failure"
)


@pytest.mark.parametrize("before", ["", "<13>Oct 11 22:14:15 box ", "<13>1 - box app - - - "])
def test_cef_is_found_inside(before: str) -> None:
    for decoder in ("syslog", "cef"):
        event = only((before + CEF).encode(), decoder)
        assert (event.type, event.severity, event.outcome) == ("Door | opened", 8, "failure")
        assert (event.actor.name, event.actor.address) == ("Zoë M", "10.0.0.1")
        assert event.message == "a=b and\nmore"
        assert event.time == "2026-01-01T00:00:00.009Z"
        attributes = attributes_of(event)
        assert attributes["cs1"] == "CHG 42"
        device = {"vendor": "Acme", "product": "Gate", "version": "1.2", "signature": "100"}
        assert attributes["device"] == device


@pytest.mark.parametrize(
    "line",
    [
        "LEEF:1.0|Acme|Gate|1.2|Door opened|usrName=ada\tsev=5\tsrc=10.0.0.1\tmsg=two words",
        "LEEF:2.0|Acme|Gate|1.2|Door opened|^|usrName=ada^sev=5^src=10.0.0.1^msg=two words",
        "LEEF:2.0|Acme|Gate|1.2|Door opened|x5E|usrName=ada^sev=5^src=10.0.0.1^msg=two words",
        "LEEF:2.0|Acme|Gate|1.2|Door opened||usrName=ada\tsev=5\tsrc=10.0.0.1\tmsg=two words",
    ],
)
def test_leef_is_found_inside(line: str) -> None:
    event = only(f"<13>Oct 11 22:14:15 box {line}".encode())
    assert (event.type, event.severity, event.message) == ("Door opened", 5, "two words")
    assert (event.actor.name, event.actor.address, event.time) == ("ada", "10.0.0.1", OCT)


@pytest.mark.parametrize("before", ["app: ", "app: @cee: ", "", "app[3]: @cee:"])
def test_json_is_found_inside(before: str) -> None:
    record = f'<13>Oct 11 22:14:15 box {before}{{"action": "login", "user": "ada", "ok": [1]}}'
    event = only(record.encode())
    assert (event.type, event.actor.name, event.time) == ("login", "ada", OCT)
    assert attributes_of(event)["ok"] == [1]


def test_a_message_of_key_value_pairs_is_read() -> None:
    text = 'type=login user="ada \\"l\\"" ip=10.0.0.1, result=failed reason=\'none given\''
    event = only(f"<13>Oct 11 22:14:15 box app: {text}".encode())
    assert (event.type, event.actor.name, event.outcome) == ("login", 'ada "l"', "failure")
    assert (event.actor.address, event.message) == ("10.0.0.1", text)
    assert attributes_of(event)["reason"] == "none given"


SAME = (
    "id", "type", "category", "severity", "outcome", "actor.name", "actor.id", "actor.address",
    "target.name", "target.id", "time", "message",
)  # fmt: skip


def test_the_formats_of_this_relay_are_read_back_field_by_field() -> None:
    source = only(
        b'{"id":"a1","time":"2026-01-02T03:04:05.678Z","type":"Account Provisioned","severity":4,'
        b'"outcome":"success","actor":{"name":"ada \\"l\\"","id":"u1","address":"10.0.0.1"},'
        b'"target":{"type":"account","name":"web [1]","id":"t1"},"message":"it = done; a\\\\b"}',
        "json",
    )
    for form, header, decoder in (
        ("syslog", "none", "syslog"), ("rfc3164", "none", "key_value"),
        ("cef", "rfc3164", "syslog"), ("leef", "rfc3164", "syslog"),
        ("json", "rfc5424", "syslog"), ("cef", "rfc5424", "syslog"),
    ):  # fmt: skip
        kind = registry.FORMATS[form]
        made = registry.build_format(form, header, kind.options(), "host")  # type: ignore[arg-type]  # a literal
        batch = DecodedBatch(Batch(1, 1, "s", RECEIVED, b"{}\n"), [source])
        (message,) = made.encode(Selection(batch))
        back = only(message, decoder)
        for field in SAME:
            get = attrgetter(field)
            assert get(back) == get(source), (form, header, field)


def test_attributes_of_another_relay_come_back_and_set_no_field() -> None:
    attributes = dict.fromkeys(("user", "actor.name", "time", "outcome", "region"), "FORGED")
    source = AuditEvent(
        id="a1", time="2026-01-02T03:04:05.678Z", type="t", category="c", severity=4,
        outcome="success", message="m", attributes=attributes,
    )  # fmt: skip
    kind = registry.FORMATS["syslog"]
    made = registry.build_format("syslog", "none", kind.options(), "host")
    (message,) = made.encode(Selection(DecodedBatch(Batch(1, 1, "s", RECEIVED, b"{}\n"), [source])))
    back = only(message)
    assert (back.actor.name, back.time, back.outcome) == (None, source.time, "success")
    found = attributes_of(back)
    assert {name: found[name] for name in attributes} == attributes


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=80),
            st.text(max_size=80).map(lambda text: text.encode("utf-8", "replace")),
        ),
        min_size=1,
        max_size=5,
    )
)
@example([b'<13>1 - - - - - [a b="', b"<1>", b"CEF:0|", b"LEEF:2.0|a|b|c|d|x5", b"{", b'a=1 b="'])
@pytest.mark.parametrize("decoder", ["syslog", "cef", "leef", "key_value", "text"])
def test_any_bytes_become_one_event_each(decoder: str, records: list[bytes]) -> None:
    records = [record.replace(b"\n", b" ") for record in records]
    found = decoded(*records, decoder=decoder).events
    assert len(found) == len(records)
    assert all(event.id and event.time and event.type for event in found)


@pytest.mark.parametrize("whole", [
    b'<165>1 2003-10-11T22:14:15.003Z m e - ID47 [e@1 iut="3"][x@2 a="\\]"] An event',
    b"<189>29: *Oct 11 22:14:15.310: %SYS-5-CONFIG_I: Configured", CEF.encode(),
    b'<13>Oct 11 22:14:15 box app[3]: {"a": "b"}', b'<13>x (a="1" b="2")',
])  # fmt: skip
def test_every_cut_of_a_message_is_an_event(whole: bytes) -> None:
    cuts = [whole[:end] for end in range(len(whole) + 1)]
    assert len(decoded(*cuts).events) == len(cuts)


@pytest.mark.parametrize("decoder", ["cef", "leef", "key_value"])
def test_text_without_a_header_is_unparsed_where_lines_of_one_form_are_expected(
    decoder: str,
) -> None:
    found = decoded(b"2026-01-01,Login,ada", b"<13>Nov 20 10:00:00 h app: words", decoder=decoder)
    assert [event.type for event in found.events] == [UNPARSED, "app"]
    assert found.unparsed == 1
    assert found.events[0].message == "2026-01-01,Login,ada"


def test_what_nobody_reads_is_not_looked_at() -> None:
    build = registry.DECODERS["syslog"].build
    made = build(GENERIC, frozenset(), CATALOGUE)
    batch = Batch(1, 2, "s", RECEIVED, b"\xff\n<13>Oct 11 22:14:15 box app: x\n")
    assert len(made.decode(batch).events) == 2


MOMENT = datetime(2026, 1, 15, 12, 0, 0, 250_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("message", "changed"),
    [
        ("<34>1 2003-10-11T22:14:15.003Z box su - ID47 - x", None),
        ("<34>Oct 11 22:14:15 box su: x", None),
        ("<189>55: r1: Oct 11 22:14:15: %SYS-5-X: x", None),
        ("<34>1 2003-10-11T22:14:15.003Z - su - ID47 - x",
         "<34>1 2003-10-11T22:14:15.003Z 192.0.2.7 su - ID47 - x"),
        ("<34>Oct 11 22:14:15 su[4]: x", "<34>Oct 11 22:14:15 192.0.2.7 su[4]: x"),
        ("<34>2025-10-11T22:14:15Z su: x", "<34>2025-10-11T22:14:15Z 192.0.2.7 su: x"),
        ("<166>Oct 11 2025 22:14:15: %ASA-6-1: x", "<166>Oct 11 2025 22:14:15 192.0.2.7 : %ASA-6-1: x"),
        ("<189>55: Oct 11 22:14:15: %SYS-5-X: x",
         "<189>2026-01-15T12:00:00.250Z 192.0.2.7 55: Oct 11 22:14:15: %SYS-5-X: x"),
        ("<13>Zo\u00eb", "<13>2026-01-15T12:00:00.250Z 192.0.2.7 Zo\u00eb"),
        ("\ufeffno PRI", "<13>2026-01-15T12:00:00.250Z 192.0.2.7 no PRI"),
        (CEF, "<13>2026-01-15T12:00:00.250Z 192.0.2.7 " + CEF),
    ],
)  # fmt: skip
def test_a_host_is_added_where_none_is_named(message: str, changed: str | None) -> None:
    made = with_host(message.encode(), "192.0.2.7", MOMENT)
    assert made == (message if changed is None else changed).encode()
    if changed is not None:
        before, after = only(message.encode()), only(made)
        assert attributes_of(after)["syslog"]["host"] == "192.0.2.7"
        assert (after.message, after.type, after.outcome) == (
            before.message, before.type, before.outcome)  # fmt: skip


@given(
    st.lists(st.binary(max_size=60).map(lambda b: b.replace(b"\n", b"")), min_size=1, max_size=4)
)
@example([b"\xef\xbb\xbf"])
def test_adding_hosts_changes_no_more_than_the_header(records: list[bytes]) -> None:
    payload = b"".join(record + b"\n" for record in records)
    made = payload_with_host(payload, len(records), "h", MOMENT).split(b"\n")[:-1]
    assert len(made) == len(records)
    for before, after in zip(records, made, strict=True):
        message = before.removeprefix(b"\xef\xbb\xbf")  # a mark at the beginning is of the header
        assert after.endswith(message[-1:])
        assert with_host(after, "other", MOMENT) == after, "it has one now"


GELF = b'{"version":"1.1","host":"web1","short_message":"' + b"sold out, " * 20 + b'"}'


@pytest.mark.parametrize(
    "record",
    [
        gzip.compress(GELF, mtime=0),
        *(zlib.compress(GELF, level) for level in (1, 6, 9)),
        b"z" + zlib.compress(b"<13>Nov 28 15:00:00 web1 app: " + b"again " * 20, 9),  # rsyslog
    ],
)
def test_a_compressed_message_is_unparsed_and_the_reason_says_what_to_turn_off(
    record: bytes,
) -> None:
    events = decoded(*record.split(b"\n")).events
    assert events[0].type == UNPARSED
    assert "ziplevel" in registry.DECODERS["syslog"].why(record)


@pytest.mark.parametrize(
    "record", [b"zx is text", "x\x01 ünï".encode(), b"<13>Nov 28 15:00:00 h app: \x1f\x8b\xff"]
)
def test_text_that_begins_like_a_compressed_message_is_text(record: bytes) -> None:
    (event, other) = decoded(record, b"\xfcber").events
    assert event.type != UNPARSED
    assert other.type != UNPARSED


@pytest.mark.parametrize("head", ["audisp-syslog: ", "audit[7]: ", "audit: node=h1 "])
def test_a_line_of_linuxs_audit_log_is_read_as_the_file_would_be(head: str) -> None:
    """As audisp-syslog and rsyslog's imfile send it. Its `msg` comes twice."""
    record = (
        f"<13>Nov 28 16:00:00 h1 {head}type=USER_LOGIN msg=audit(1763000000.123:456): pid=12 uid=0 "
        """auid=4294967295 msg='op=login acct="root" addr=203.0.113.9 terminal=ssh res=failed'"""
    )
    event = only(record.encode())
    assert (event.type, event.outcome, event.time) == (
        "USER_LOGIN", "failure", "2025-11-13T02:13:20.123Z",
    )  # fmt: skip
    assert (event.actor.name, event.actor.address) == ("root", "203.0.113.9")
    assert attributes_of(event)["user_login"]["acct"] == "root"
    assert attributes_of(event)["syslog"]["host"] == "h1"


# audisp-syslog and imfile have one priority for all that they send, here "informational".
@pytest.mark.parametrize(
    ("body", "message", "event"),
    [
        ("auto", "type=CONFIG_CHANGE msg=audit(1763000000.123:4): auid=1000 op=remove_rule res=1",
         ("CONFIG_CHANGE", "configuration", 7, "success")),
        ("auto", "node=web type=USER_LOGIN msg=audit(1763000000.123:5): msg='acct=\"a\" res=failed'",
         ("USER_LOGIN", "session", 5, "failure")),
        ("auto", "type=CONFIG_CHANGE by=ada", ("CONFIG_CHANGE", "configuration", 2, "unknown")),
        ("laurel", '@cee: {"ID":"1763000000.123:6","CONFIG_CHANGE":[{"auid":1000,"res":1}]}',
         ("CONFIG_CHANGE", "configuration", 7, "success")),
        ("laurel", "Started laurel", ("laurel", "other", 2, "unknown")),
    ],
)  # fmt: skip
def test_an_audit_event_over_syslog_has_the_severity_of_its_type(
    body: str, message: str, event: tuple[str, str, int, str]
) -> None:
    catalogue = BUILT_IN.catalogue(["auditd"], product="auditd")
    made = registry.DECODERS["syslog"].build(
        BUILT_IN["auditd"].spellings, EVERYTHING, catalogue, body=body
    )
    record = f"<14>Nov 28 16:00:00 h1 laurel: {message}\n".encode()
    (found,) = made.decode(Batch(1, 1, "devices", RECEIVED, record)).events
    assert (found.type, found.category, found.severity, found.outcome) == event


def test_pairs_that_begin_like_an_audit_line_and_are_none_are_pairs() -> None:
    event = only(b"<13>Nov 28 16:00:00 h1 fw: type=traffic policy=3 user=ada")
    assert (event.type, event.actor.name) == ("traffic", "ada")
