"""An auditor reads the fields that a SIEM shows: they must be those of the message under seal."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from siemrelay.proof.exports.shown_fields import compared
from siemrelay.proof.note import Signer
from siemrelay.proof.report import Report
from siemrelay.proof.verification import Verification
from tests.support.seals.stream import SIGNER, SealedStream, read_into, sealed


def verified(stream: SealedStream, export: bytes, added: tuple[str, ...] = ()) -> Report:
    checked = Verification([SIGNER.verifier], until=stream.now.timestamp())
    read_into(checked, [export], added)
    return checked.report()


def rows(stream: SealedStream, **third: Any) -> bytes:
    """Splunk's rows, with the fields of each message; the third one shows others, too."""
    lines = []
    for place, line in enumerate(stream.lines):
        event = json.loads(line)
        fields = {"type": event["type"], "siemrelay.n": event["siemrelay"]["n"]}
        if "user" in event:
            fields["user"] = event["user"]
        shown = {**fields, "_raw": line.decode(), **(third if place == 3 else {})}
        lines.append(json.dumps({"preview": False, "result": shown}))
    return "\n".join(lines).encode()


def test_fields_that_the_message_has_alike_are_proven() -> None:
    report = verified(sealed(), rows(sealed()))
    assert (report.is_proven, report.notes) == (True, [])


def test_a_field_that_shows_something_else_than_the_message_is_a_changed_event() -> None:
    report = verified(sealed(), rows(sealed(), user="mallory"))
    (finding,) = report.findings
    assert (finding.kind, finding.first, finding.last) == ("changed", 3, 3)
    assert (finding.after, finding.before) == ("", "2026-11-28T03:01:00+00:00")
    assert "export:4: the export shows 'user' as 'mallory'" in finding.why
    assert "has 'user3'" in finding.why
    assert not report.unchanged


@pytest.mark.parametrize(
    ("field", "shown"), [("actor.name", "mallory"), ("tries", "7"), ("at.n", "8"), ("kind", "x ")]
)
@pytest.mark.parametrize("shape", ["json", "csv"])
def test_one_changed_field_among_rows_that_are_compared_at_once_is_found(
    field: str, shown: str, shape: str
) -> None:
    stream, out, table = SealedStream(), io.StringIO(), list[dict[str, str]]()
    for n in range(200):
        stream.send(actor={"name": f"user{n}"}, kind="x", tries=n, at={"n": n, "zone": "UTC"})
    stream.seal()
    for n, line in enumerate(stream.lines):
        row, event = {"_raw": line.decode(), "host": "relay"}, json.loads(line)
        for name in ("kind", "tries", "actor.name", "at.n", "at.zone"):
            value = event
            for part in name.split("."):
                value = value.get(part, {})
            row[name] = str(value or "")
        table.append(row | ({field: shown} if n == 123 else {}))
    if shape == "json":
        out.writelines(json.dumps({"result": row}) + "\n" for row in table)
    else:
        csv.writer(out).writerows([list(table[0]), *(list(row.values()) for row in table)])
    (finding,) = verified(stream, out.getvalue().encode()).findings
    assert (finding.kind, finding.first, finding.last) == ("changed", 123, 123)
    assert repr(field) in finding.why


def test_a_field_that_the_auditor_calls_the_siems_own_is_not_compared() -> None:
    assert verified(sealed(), rows(sealed(), user="mallory"), ("user",)).is_proven


def test_fields_that_the_message_does_not_have_are_named_as_not_proven() -> None:
    report = verified(sealed(), rows(sealed(), role="admin", host="relay", _time="now"))
    assert report.is_proven
    (note,) = report.notes
    assert note.text == (
        "of 1 row the message itself is proven, and not the fields beside it that it does not "
        "have: _time, host, role"
    )


def test_a_column_that_shows_something_else_than_the_message_is_a_changed_event() -> None:
    stream, out = sealed(), io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["_raw", "user", "siemrelay.n"])
    for place, line in enumerate(stream.lines):
        user = json.loads(line).get("user", "")
        writer.writerow([line.decode(), "mallory" if place == 3 else user, ""])
    report = verified(stream, out.getvalue().encode())
    assert [(each.kind, each.first) for each in report.findings] == [("changed", 3)]


def test_a_second_whole_message_beside_the_one_that_is_compared_must_be_the_same() -> None:
    stream, lines = sealed(), list[str]()
    for place, line in enumerate(stream.lines):
        beside = line.replace(b"user3", b"mallory") if place == 3 else line
        lines.append(json.dumps({"event": {"original": line.decode()}, "message": beside.decode()}))
    report = verified(stream, "\n".join(lines).encode())
    assert [(each.kind, each.first) for each in report.findings] == [("changed", 3)]
    assert "shows 'message' as" in report.findings[0].why
    assert report.notes == []


def test_a_csv_hides_nothing_in_a_second_column_or_behind_the_last_one() -> None:
    stream = sealed()
    rows = [
        '"_raw","user"',
        *(
            json.dumps(line.decode()).replace("\\", '"')[:-1]
            + '","'
            + json.loads(line).get("user", "")
            + '"'
            for line in stream.lines
        ),
    ]
    assert verified(stream, "\n".join(rows).encode()).notes == []
    rows[4] += ',"mallory logged in"'
    (note,) = verified(stream, "\n".join(rows).encode()).notes
    assert note.text.endswith("does not have: (a cell behind the last column)")
    for header in ('"_raw","user","user"', '"_raw","user","_raw"'):
        with pytest.raises(ValueError, match="the CSV has a column twice: '"):
            verified(stream, "\n".join([header, *rows[1:]]).encode())


def test_a_name_or_text_of_an_attacker_does_not_reach_the_terminal_as_a_command() -> None:
    """Else it overwrites the verdict that an auditor reads."""
    stream, clear = sealed(), "\x1b[2Jcomplete\u202e"
    named = rows(stream, **{clear: "x"})
    (note,) = verified(stream, named).notes
    assert r"\x1b[2Jcomplete\u202e" in note.text
    forger = SealedStream(signer=Signer("relay\x1b[2J", bytes(32)))
    forger.origin = f"relay\x1b[2J/splunk/{forger.name}"
    forger.send(3)
    forger.seal()
    report = verified(stream, b"\n".join(forger.lines))
    texts = [text for each in report.findings for text in (each.why, each.stream)]
    assert any(r"relay\x1b[2J" in text for text in texts)
    assert all(text.isprintable() for text in texts)


@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: {"_source": value}])
def test_a_whole_message_that_is_added_to_a_document_vouches_for_nothing(wrap: Any) -> None:
    stream, lines = sealed(), list[str]()
    for place, line in enumerate(stream.lines):
        event = json.loads(line)
        if place == 3:
            event = event | {"user": "mallory", "_raw": line.decode(), "message": line.decode()}
        lines.append(json.dumps(wrap(event)))
    report = verified(stream, "\n".join(lines).encode())
    assert [(each.kind, each.first, each.last) for each in report.findings] == [("changed", 0, 9)]


def test_an_event_may_hold_the_whole_message_of_another_relay() -> None:
    stream, other = SealedStream(), sealed(1, name="zzzzzzzz22")
    stream.send(_raw=other.lines[0].decode(), level=5)
    stream.seal()
    report = verified(stream, b"\n".join(stream.lines))
    assert (report.is_proven, [each.origin for each in report.streams]) == (True, [stream.origin])


CEF = rb"CEF:0|v|p|1|t|User \| Logged In|3|suser=ada lovelace msg=a \= b\\c cnt=7"
LEEF = b"LEEF:2.0|v|p|1|t|x09|usrName=ada\tsrc=10.0.0.1"
SYSLOG = rb'[event@1 user="a\"d\"a" count="3"] text'
JSON = b'{"a":{"b":1,"c":[1,"x"]},"d":[{"e":true}],"f":null,"g":1.50,"id":9007199254740993}'


@pytest.mark.parametrize(("message", "shown", "is_alike"), [
    (CEF, {"suser": "ada lovelace", "cnt": "7"}, True),
    (CEF, {"suser": "ada"}, True),  # Splunk ends a value at a space
    (CEF, {"suser": "ad"}, False),
    (CEF, {"msg": "a = b\\c"}, True),
    (CEF, {"cnt": "8"}, False),
    (LEEF, {"usrName": "ada", "src": "10.0.0.1"}, True),
    (LEEF, {"src": "10.0.0.2"}, False),
    (SYSLOG, {"user": 'a"d"a', "count": 3}, True),
    (SYSLOG, {"count": "4"}, False),
    (JSON, {"a.b": "1", "a.c{}": ["1", "x"], "d{}.e": "true", "f": "null", "g": "1.5"}, True),
    (JSON, {"a": {"b": 1, "c": [1, "x"]}, "d": [{"e": True}]}, True),
    (JSON, {"g": "1.50"}, True),
    (JSON, {"g": "1.6"}, False),
    (JSON, {"a.c{}": ["1"]}, False),
    (JSON, {"a.c{}": ["1", "x", "y"]}, False),
    (JSON, {"a.b": ["1", "1"]}, True),  # extracted twice
    (JSON, {"a.b": ""}, True),  # an empty cell shows nothing
    (JSON, {"a": {"b": 2}}, False),
    (JSON, {"d{}.e": "false"}, False),
    (JSON, {"id": "9007199254740992"}, False),
    (b'{"host":"a","source":"b"}', {"host": "splunk", "source": "tcp:1514"}, True),
    (b"no pairs", {"user": "ada"}, True),
])  # fmt: skip
def test_shown_values_agree_with_those_of_the_message(
    message: bytes, shown: dict[str, Any], is_alike: bool
) -> None:
    found = compared({**shown, "_raw": "x"}, "_raw", message)
    assert (found is None or found.conflict == "") is is_alike
