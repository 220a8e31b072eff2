"""Palo Alto's CSV over syslog → events."""
# ruff: noqa: E501  (rows are as long as they are)

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from siemrelay import registry
from siemrelay.core.event import FIELDS, AuditEvent, Batch, attributes_of, field_getter
from siemrelay.core.event_types import UNTYPED
from tests.support.events.products import CATALOGUE, GENERIC

HEADER = "<14>Nov 19 07:00:02 pa "
RECEIVED_S = datetime(2026, 11, 19, 7, 0, 5, tzinfo=UTC).timestamp()
BEGIN = "1,2026/11/19 07:00:01,001801000000,"
SESSION = (
    "2049,2026/11/19 07:00:00,10.1.1.5,203.0.113.9,198.51.100.1,203.0.113.9,Out,corp\\ada,,ssl,"
    "vsys1,trust,untrust,ethernet1/1,ethernet1/2,fwd,2026/11/19 07:00:00,72568134,1,49583,443,"
    "50464,443,0x40441a,tcp,"
)
SYSTEM = (
    BEGIN + "SYSTEM,auth,0,2026/11/19 07:00:00,,auth-fail,GW,0,0,general,medium,"
    '"failed authentication for user ""ada"", from 10.1.1.5.",641953,0x8000000000000000,0,0,0,0,,PA-VM'
)


def decoded(text: str, **options: Any) -> AuditEvent:
    build = registry.DECODERS["syslog"].build
    made = build(GENERIC, frozenset({*FIELDS, "attributes"}), CATALOGUE, **options)
    (event,) = made.decode(Batch(1, 1, "devices", RECEIVED_S, text.encode() + b"\n")).events
    return event


def fields(event: AuditEvent) -> dict[str, Any]:
    found = {field: field_getter(field)(event) for field in FIELDS}
    return {name: value for name, value in found.items() if value is not None}


ROWS: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "SYSTEM with a quoted message": (
        SYSTEM,
        {"type": "SYSTEM auth", "severity": 5, "outcome": "failure", "target.name": "GW",
         "message": 'failed authentication for user "ada", from 10.1.1.5.',
         "id": "001801000000/SYSTEM/641953/2026/11/19 07:00:00"},
        {"eventid": "auth-fail", "module": "general", "device_name": "PA-VM"},
    ),
    "TRAFFIC": (
        BEGIN + "TRAFFIC,end," + SESSION + "allow,7312,2228,5084,22,2026/11/19 06:59:00,16,any,,"
        "7253419119627122716,0x8000000000000000,10.0.0.0-10.255.255.255,Japan,,12,10,"
        "tcp-rst-from-client,34,0,0,0,,pa,from-policy,,,0,,0,,N/A,0,0,0,0,90431d13,0,more",
        {"type": "TRAFFIC end", "severity": 2, "outcome": "success", "actor.name": "corp\\ada",
         "actor.address": "10.1.1.5", "target.name": "203.0.113.9"},
        {"action": "allow", "rule": "Out", "dport": "443", "bytes": "7312", "category": "any",
         "session_end_reason": "tcp-rst-from-client", "device_name": "pa", "rule_uuid": "90431d13",
         "tunnel": "N/A", "column68": "more"},
    ),
    "THREAT": (
        BEGIN + "THREAT,url," + SESSION + 'block-url,"example.com/a,b",(9999),hacking,high,'
        "client-to-server,486021038,0xa0,10.0.0.0-10.255.255.255,US,,text/html,0,,,1,Mozilla,,,,,,,0,34,0,0,0,,pa,",
        {"type": "THREAT url", "severity": 8, "outcome": "failure", "actor.name": "corp\\ada"},
        {"misc": "example.com/a,b", "threatid": "(9999)", "category": "hacking",
         "direction": "client-to-server", "user_agent": "Mozilla", "device_name": "pa"},
    ),
    "CONFIG": (
        BEGIN + "CONFIG,0,0,2026/11/19 07:00:00,10.255.0.1,,set,grace,Web,Succeeded, config mgt-config users,8071,0x0,0,0,0,0,,pa",
        {"type": "CONFIG set", "outcome": "success", "actor.name": "grace",
         "actor.address": "10.255.0.1", "target.name": " config mgt-config users"},
        {"client": "Web", "result": "Succeeded", "device_name": "pa"},
    ),
    "CONFIG with details": (
        BEGIN + 'CONFIG,0,0,2026/11/19 07:00:00,10.255.0.1,,edit,grace,Web,Unauthorized,vsys,7,"VR1 { a, b; }",8072,0x0,0,0,0,0,,pa',
        {"type": "CONFIG edit", "outcome": "failure", "target.name": "vsys"},
        {"before_change_detail": "7", "after_change_detail": "VR1 { a, b; }", "device_name": "pa"},
    ),
    "GLOBALPROTECT": (
        BEGIN + "GLOBALPROTECT,0,2305,2026/11/19 07:00:00,vsys1,gateway-auth,login,SAML,,ada,FR,LAPTOP,203.0.113.24,0.0.0.0,"
        '0.0.0.0,0.0.0.0,host-1,ABC,6.2.4,Windows,"Windows 11 , 64-bit",1,,,"Login from: FR, ok",failure,,0,user-logon,0,gw1,'
        "1234567,0x8000000000000000,2026-11-19T08:00:00.123+01:00",
        {"type": "GLOBALPROTECT gateway-auth", "outcome": "failure", "actor.name": "ada",
         "actor.address": "203.0.113.24", "target.name": "gw1", "message": "Login from: FR, ok",
         "time": "2026-11-19T08:00:00.123+01:00"},
        {"stage": "login", "machinename": "LAPTOP", "client_os_ver": "Windows 11 , 64-bit"},
    ),
    "AUTHENTICATION": (
        BEGIN + "AUTHENTICATION,radius,0,2026/11/19 07:00:00,vsys1,10.1.1.5,corp\\ada,ada,portal,pol,1,88,Duo,fwd,srv,denied by MFA,"
        "web,auth-fail,2,556392,0x0,0,0,0,0,,pa,1,PAP,",
        {"type": "AUTHENTICATION radius", "outcome": "failure", "actor.name": "corp\\ada",
         "actor.address": "10.1.1.5", "target.name": "portal", "message": "denied by MFA"},
        {"vendor": "Duo", "serverprofile": "srv", "factorno": "2", "authproto": "PAP"},
    ),
    "USERID": (
        BEGIN + "USERID,login,0,2026/11/19 07:00:00,vsys1,10.1.1.5,corp\\ada,agent,0,1,2700,0,0,active-directory,,39,0x0,0,0,0,0,,pa,1,,"
        "1969/12/31 16:00:00,1,0x0,corp\\ada,,1969-12-31T16:00:00.000-08:00",
        {"type": "USERID login", "actor.name": "corp\\ada", "actor.address": "10.1.1.5"},
        {"datasourcename": "agent", "timeout": "2700", "datasource": "active-directory"},
    ),
    "a log type of which only the common columns are known": (
        BEGIN + "DECRYPTION,0,2561,2026/11/19 07:00:00,10.1.1.5,203.0.113.9",
        {"type": "DECRYPTION"}, {"column8": "10.1.1.5", "column9": "203.0.113.9"},
    ),
    "the zero and the serial number of a firewall without a licence": (
        SYSTEM.replace("1,", "0,", 1).replace("001801000000", "unknown"), {"type": "SYSTEM auth"}, {},
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "header", [HEADER, "<14>Nov 19 07:00:02 ", "<14>1 2026-11-19T07:00:02Z pa - - - - "]
)
@pytest.mark.parametrize("what", ROWS)
def test_a_row_fills_the_fields_of_its_event(what: str, header: str) -> None:
    row, expected, attributes = ROWS[what]
    for body in ("auto", "pan_os"):
        event = decoded(header + row, body=body)
        found = fields(event)
        assert found["time"] == expected.get("time", "2026-11-19T07:00:00Z")
        assert {name: found.get(name) for name in expected} == expected
        kept = attributes_of(event)
        assert {name: kept.get(name) for name in attributes} == attributes
        assert kept["serial"] in ("001801000000", "unknown")
        assert kept["syslog"].get("host") == (None if header.endswith("02 ") else "pa")


def test_the_time_of_a_row_is_in_the_zone_of_its_firewall() -> None:
    found = decoded(HEADER + SYSTEM, timezone="+02:00").time
    assert found == "2026-11-19T07:00:00+02:00"


@pytest.mark.parametrize("row", [
    BEGIN + "SYSTEM,auth,…", BEGIN + "SYSTEM,auth", BEGIN, "1,", "0,x",
    SYSTEM[: SYSTEM.index(",641953")], SYSTEM[:120],
    SYSTEM.replace("SYSTEM", "LOGIN"), SYSTEM.replace("2026/11/19 07:00:01", "2026-11-19 07:00:01"),
    SYSTEM.replace("1,", "2,", 1), SYSTEM.replace("001801000000", "00 18"), SYSTEM.replace("0x8", "8"),
    SYSTEM.replace('"failed', "failed,"), SYSTEM.replace(",general,", ",general,type,severity,"),
    "Invalid user " + SYSTEM, BEGIN + "DECRYPTION,0,1",
])  # fmt: skip
def test_what_is_no_whole_row_stays_text(row: str) -> None:
    event = decoded(HEADER + row)
    assert (event.type, event.message, event.outcome) == (UNTYPED, row, "unknown")
    assert event.time == "2026-11-19T07:00:02Z"
    assert attributes_of(event).keys() <= {"syslog", "text"}


@pytest.mark.parametrize(
    "chosen", ["x,critical", 'x",critical,"', "type=y severity=9", '{"type":"y"}', "1,7,0x0"]
)
def test_a_name_in_a_quoted_value_does_not_choose_the_event(chosen: str) -> None:
    text = chosen.replace('"', '""')
    event = decoded(HEADER + SYSTEM.replace('""ada""', text))
    assert (event.type, event.severity) == ("SYSTEM auth", 5)
    assert event.message == f"failed authentication for user {chosen}, from 10.1.1.5."


def test_a_kind_that_is_no_plain_name_is_not_in_the_type() -> None:
    row = SYSTEM.replace("SYSTEM,auth,", "SYSTEM,a b,")
    assert decoded(HEADER + row).type == "SYSTEM"
