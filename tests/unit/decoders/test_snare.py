"""Snare's `MSWinEventLog`: lines as rsyslog's and Graylog's tests and the agents' guides have them."""
# ruff: noqa: E501  (records are as long as they are)

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from siemrelay import registry
from siemrelay.cli.proposals import proposal
from siemrelay.core.event import FIELDS, AuditEvent, Batch, attributes_of, field_getter
from siemrelay.decoders.snare import snare_fields
from siemrelay.products.product import BUILT_IN

RECEIVED_S = datetime(2026, 3, 1, tzinfo=UTC).timestamp()
EVERYTHING = frozenset({*FIELDS, "attributes"})

SUBJECT = "Subject:   Security ID:  S-1-5-18   Account Name:  SYSTEM   Account Domain:  NT AUTHORITY   Logon ID:  0x3E7"
LOGON = f"""An account was successfully logged on.    {SUBJECT}    Logon Information:   Logon Type:  2   Restricted Admin Mode: -   Virtual Account:  %%1843   Elevated Token:  %%1843    New Logon:   Security ID:  S-1-5-21-88997766-500   Account Name:  ADMIN-LAPS$   Account Domain:  FABRIKAM   Logon ID:  0x52F1A   Linked Logon ID:  0x0   Network Account Name: -   Network Account Domain: -    Process Information:   Process ID:  0x66c   Process Name:  C:\\Windows\\System32\\winlogon.exe    Network Information:   Workstation Name:  CORE25-01   Source Network Address: 192.168.50.12   Source Port:  59122    Detailed Authentication Information:   Logon Process:  User32   Authentication Package:  Negotiate"""
FAILED = "An account failed to log on.    Subject:   Security ID:  S-1-0-0   Account Name:  -   Account Domain:  -   Logon ID:  0x0    Logon Type:   3    Account For Which Logon Failed:   Security ID:  S-1-0-0   Account Name:  {user}   Account Domain:  X    Failure Information:   Failure Reason:  Unknown user name or bad password.   Status:   0xC000006D   Sub Status:  0xC0000064    Process Information:   Caller Process ID: 0x0   Caller Process Name: -    Network Information:   Workstation Name: {station}   Source Network Address: 192.168.0.11   Source Port:  51542"
TGT = "A Kerberos authentication ticket (TGT) was requested.    Account Information:   Account Name:  jyria   Supplied Realm Name: e8sec.lab   User ID:   S-1-5-21-1908711140-1104    Service Information:   Service Name:  krbtgt   Service ID:  S-1-5-21-1908711140-502    Network Information:   Client Address:  ::ffff:192.168.12.21   Client Port:  58741    Additional Information:   Ticket Options:  0x40810010   Result Code:  0x0"
STARTING = "Windows is starting up.    This event is logged when LSASS.EXE starts and the auditing subsystem is initialized."
DELETED = "A user account was deleted.  Subject:  Security ID:  S-1-5-21-2081084977-500  Account Name:  Administrator  Account Domain:  TESTWIN  Logon ID:  0x5F1B5  Target Account:  Security ID:  S-1-5-21-2081084977-1126  Account Name:  admintest  Account Domain:  TESTWIN  Additional Information:  Privileges -"


def snare(number: str, text: str, *, audit: str = "Success Audit", user: str = "N/A",
          computer: str = "DC1", end: str = "\t802", log: str = "Security") -> str:  # fmt: skip
    return (
        f"MSWinEventLog\t1\t{log}\t12773\tTue Feb 18 06:42:17 2025\t{number}"
        f"\tMicrosoft-Windows-Security-Auditing\t{user}\tN/A\t{audit}\t{computer}\tLogon\t\t{text}{end}"
    )


def decoded(line: str, product: str = "windows", **options: Any) -> AuditEvent:
    catalogue = BUILT_IN.catalogue([product], product=product)
    made = registry.DECODERS["syslog"].build(
        BUILT_IN[product].spellings, EVERYTHING, catalogue, **options
    )
    (event,) = made.decode(Batch(1, 1, "win", RECEIVED_S, line.encode() + b"\n")).events
    return event


def fields(event: AuditEvent) -> dict[str, Any]:
    found = {field: field_getter(field)(event) for field in FIELDS}
    return {name: value for name, value in found.items() if value is not None and name != "message"}


LOGON_EVENT = {
    "id": "DC1/Security/802", "time": "2025-02-18T06:42:17Z",
    "type": "An account was successfully logged on", "category": "session", "severity": 2,
    "outcome": "success", "actor.name": "ADMIN-LAPS$", "actor.id": "S-1-5-21-88997766-500",
    "actor.address": "192.168.50.12", "target.name": "DC1",
}  # fmt: skip


@pytest.mark.parametrize(
    "before",
    [
        "<13>1 2025-02-18T06:42:17.554128Z DC1 - - - - ", "<14>Feb 18 06:42:17 DC1 ",
        "<14>2025-02-18T06:42:17+01:00 DC1 ", "DC1\t", "<14>DC1\t", "<14>Feb 18 06:42:17 DC1\t", "",
    ],
)  # fmt: skip
@pytest.mark.parametrize("escaped", [False, True])
def test_a_logon_becomes_one_event_whatever_stands_before_it_and_also_from_rsyslog(
    before: str, escaped: bool
) -> None:
    line = before + snare("4624", LOGON)
    event = decoded(line.replace("\t", "#011") if escaped else line)
    assert fields(event) == LOGON_EVENT
    assert event.message == LOGON
    attributes = attributes_of(event)
    assert attributes["LogonType"] == "2"
    assert attributes["SubjectUserName"] == "SYSTEM"
    assert attributes["WorkstationName"] == "CORE25-01"
    assert attributes["Channel"] == "Security"
    if before:
        assert attributes["syslog"]["host"] == "DC1"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            snare("4625", FAILED.format(user="bob", station="WS7"), audit="Failure Audit"),
            {"type": "An account failed to log on", "outcome": "failure", "severity": 5,
             "actor.name": "bob", "actor.address": "192.168.0.11", "target.name": "DC1"},
        ),
        (
            snare("4768", TGT, user="e8sec.lab\\jyria"),
            {"type": "A Kerberos authentication ticket (TGT) was requested",
             "actor.name": "jyria", "actor.address": "::ffff:192.168.12.21",
             "target.name": "krbtgt"},
        ),
        (
            snare("4726", DELETED, audit="AUDIT_SUCCESS"),
            {"type": "A user account was deleted", "category": "user-management",
             "actor.name": "Administrator", "target.name": "admintest",
             "target.id": "S-1-5-21-2081084977-1126"},
        ),
        (
            snare("4608", STARTING),
            {"type": "Windows is starting up", "target.name": "DC1"},
        ),
        (
            "windowsserver\tMSWinEventLog\t1\tSecurity\t1167\tFri Mar 19 15:33:30 2010\t540\tSecurity\tSYSTEM\tUser\tSuccess Audit\tWINDOWSSERVER\tLogon/Logoff\t\tSuccessful Network Logon:     User Name: WINDOWSSERVER$     Domain: DOMX\t733",
            {"type": "540", "actor.name": "SYSTEM", "outcome": "success", "id": "WINDOWSSERVER/Security/733", "time": "2010-03-19T15:33:30Z"},
        ),
        (
            "propc12\tMSWinEventLog\t4\tSystem\t2174\tFri Nov 27 09:58:51 2015\t7036\tService Control Manager\tN/A\tN/A\tInformation\tpropc12\tNone\t\tThe Application Experience service entered the stopped state.\t0",
            {"type": "7036", "outcome": "unknown", "target.name": "propc12", "time": "2015-11-27T09:58:51Z"},
        ),
        (
            snare("4690", "An attempt was made to duplicate a handle.", user="TESTGROUP\\HOST$", end="\t78714\tEventSourceId=AU_123"),
            {"type": "4690", "actor.name": "HOST$", "id": "DC1/Security/78714"},
        ),
        (
            '<14>Sep 17 16:37:26 WIN MSWinEventLog\t0\t{"EventTime":"2025-09-17T16:37:26.5-07:00","Hostname":"WIN","EventType":"AUDIT_SUCCESS","EventID":4624,"Channel":"Security","RecordNumber":58,"TargetUserName":"SYSTEM","Message":"An account was successfully logged on."}',
            {"id": "WIN/Security/58", "type": "An account was successfully logged on", "actor.name": "SYSTEM", "severity": 2, "time": "2025-09-17T16:37:26.5-07:00"},
        ),
    ],
    ids=["4625", "4768", "4726", "4608", "540", "7036", "4690", "json"],
)  # fmt: skip
def test_events_of_windows_fill_their_fields(line: str, expected: dict[str, Any]) -> None:
    found = fields(decoded(line, max_time_past=1e10))
    assert {name: found.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("user", "station"),
    [
        ("bob   Source Network Address:  6.6.6.6", "WS7"),
        ("bob    Network Information:   Source Network Address:  6.6.6.6", "WS7"),
        ("bob\tAccount Name:\tadmin", "WS7"),
        ("bob", "x   Source Network Address: 6.6.6.6   Source Port:  1"),
        ("bob    Account For Which Logon Failed:   Account Name:  admin", "WS7"),
    ],
)
def test_who_writes_labels_into_a_name_chooses_neither_user_nor_address(
    user: str, station: str
) -> None:
    event = decoded(snare("4625", FAILED.format(user=user, station=station), user="X\\real"))
    assert event.actor.address != "6.6.6.6"
    assert event.actor.name in ("real", "bob"), "as anybody may call himself"
    assert event.type == "An account failed to log on"


def test_sections_count_only_in_the_events_of_the_security_log_that_have_them() -> None:
    text = f"Something of somebody's own.    {SUBJECT}"
    assert decoded(snare("4624", text, log="Application")).actor.name is None
    assert decoded(snare("9999", text)).actor.name is None


def test_an_empty_value_is_none_and_never_the_next_label() -> None:
    text = LOGON.replace("Name:  CORE25-01", "Name:   ").replace(
        "Address: 192.168.50.12", "Address:"
    )
    event = decoded(snare("4624", text))
    assert "WorkstationName" not in attributes_of(event)
    assert event.actor.address is None
    assert attributes_of(event)["IpPort"] == "59122"


@pytest.mark.parametrize(
    "line",
    [
        "MSWinEventLog\t1\tSecurity", "MSWinEventLog\tx\tSecurity\t1\tt\t4624\ta\tb\tc\td\te\tf\tg",
        "MSWinEventLog\t1\tSecurity\t1\tt\tN/A\ta\tb\tc\td\te\tf\tg", "MSWinEventLog\t0\t{\"a\":",
        "MSWinEventLog\t0\t[1]",
    ],
)  # fmt: skip
def test_what_is_no_whole_row_stays_text(line: str) -> None:
    assert snare_fields(line) is None
    assert decoded(f"<13>Feb 18 06:42:17 host {line}").message == line


def test_without_its_product_the_severity_is_that_of_the_header() -> None:
    line = f"<11>Feb 18 06:42:17 DC1 {snare('4624', LOGON)}"
    assert decoded(line, "generic").severity == 7
    assert decoded(line).severity == 2


def test_a_file_of_them_is_found_to_be_of_windows() -> None:
    lines = "".join(f"DC1\t{snare('4624', LOGON)}\n" for _ in range(3))
    found = proposal(lines.encode(), whole=True)
    assert found is not None
    assert found.settings == {"decoder": "syslog", "product": "windows"}
