"""LAUREL's JSON, as LAUREL 0.5.1 of Debian wrote the audit log of the corpus, and by its manual."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from siemrelay import registry
from siemrelay.core.event import FIELDS, AuditEvent, attributes_of
from siemrelay.core.event_types import UNPARSED, Catalogue
from siemrelay.core.lines import records_of
from siemrelay.products.product import BUILT_IN
from siemrelay.wire.framing.audit_events import AuditSplitter
from siemrelay.wire.framing.contract import Rest
from tests.support.events.strategies import batch_of

CORPUS = Path(__file__).parents[2] / "corpus"
WRITTEN = (CORPUS / "laurel.json").read_bytes().splitlines()
EVERYTHING = frozenset({*FIELDS, "attributes"})


def decoded(name: str, records: list[bytes]) -> list[AuditEvent]:
    kind = registry.DECODERS[name]
    made = kind.build(BUILT_IN["auditd"].spellings, EVERYTHING, Catalogue(), max_time_past=1e10)
    return list(made.decode(batch_of(records)).events)


def by_serial(events: list[AuditEvent]) -> dict[str, AuditEvent]:
    return {attributes_of(event)["serial"]: event for event in events}


# LAUREL 0.5.1 reads no record with two spaces between fields, or one before the colon.
LOG = (CORPUS / "audit.log").read_bytes().replace(b"  ", b" ").replace(b") : ", b"): ")
CHUNK = AuditSplitter(at_start=True).split(LOG, Rest.FINAL)
assert CHUNK is not None
AUDITD = by_serial(decoded("auditd", list(records_of(CHUNK.payload, CHUNK.count))))
LAUREL = by_serial(decoded("laurel", WRITTEN))


@pytest.mark.parametrize("serial", sorted(AUDITD))
def test_an_event_by_laurel_is_the_event_that_auditds_own_lines_are(serial: str) -> None:
    own, event = AUDITD[serial], LAUREL[serial]
    for field in ("time", "type", "outcome", "actor", "target"):
        assert getattr(event, field) == getattr(own, field), field
    if own.type in ("EXECVE", "SYSCALL"):
        assert event.message == own.message or "proctitle" not in attributes_of(event)


def test_what_laurel_decoded_is_found_under_the_names_that_auditds_records_have() -> None:
    exec_, connect, avc = (attributes_of(LAUREL[serial]) for serial in ("501", "502", "506"))
    assert exec_["execve"]["argv"] == ["sh", "-c", 'echo "hi there" && rm']
    assert (exec_["names"]["auid"], exec_["syscall"]["arch"]) == ("ada", "x86_64")
    assert exec_["syscall"]["arguments"] == ["0x5581", "0x5582", "0x5583", "0x8"]
    assert connect["syscall"]["key"] == ["net", "out"]
    assert connect["sockaddr"]["saddr"]["port"] == 443
    assert avc["avc"]["permissions"] == ["read", "write"]
    assert (avc["avc"]["avc"], "denied" in avc["avc"]) == ("denied", False)
    assert LAUREL["504"].message == (
        'cwd="/home/ada" cmd="cat "x" " exe="/usr/bin/sudo" terminal=pts/1 res=success'
    )


def one(**records: Any) -> AuditEvent:
    record = {"ID": "1700000000.001:7", **records}
    return decoded("laurel", [json.dumps(record).encode()])[0]


def test_what_laurel_adds_to_a_record_is_kept_and_names_no_number() -> None:
    parent = {"ID": "1.000:1", "comm": "sh", "exe": "/bin/sh"}
    syscall = {"success": "yes", "uid": 48, "UID": "unknown(48)", "PPID": {"comm": "bash"}}
    event = one(PARENT_INFO=parent, NODE="web-1", SYSCALL={**syscall, "exe": "/bin/ls"}, extra=[1])
    found = attributes_of(event)
    assert (event.type, event.actor.id, event.actor.name) == ("SYSCALL", "48", None)
    assert (event.target.name, found["node"]) == ("/bin/ls", "web-1")
    assert found["syscall"]["PPID"] == {"comm": "bash"}
    assert (found["PARENT_INFO"]["comm"], found["extra"]) == ("sh", [1])


def test_no_text_in_a_record_is_taken_for_one_of_its_fields() -> None:
    # A command called CAFE is no hexadecimal, and what a program says cannot replace the kernel's.
    event = one(USER_CMD={"uid": 1000, "auid": 1000, "comm": "CAFE", "msg": "auid=0 acct=x res=1"})
    assert (event.actor.id, event.outcome) == ("1000", "success")
    named = one(SYSCALL={"comm": "CAFE", "exe": 'a" uid=0 success="yes', "success": "no"})
    assert (named.outcome, named.actor.id) == ("failure", None)
    assert 'comm="CAFE"' in str(named.message)
    empty = one(EXECVE={"argc": 0, "ARGV": []})
    assert (empty.type, empty.target.name) == ("EXECVE", None)
    odd = one(
        SYSCALL={"success": {"a": 1}, "uid": ["x"], "name": {}, "cwd": []}, PATH=[{"name": 1}]
    )
    assert (odd.type, odd.outcome) == ("SYSCALL", "unknown")


def test_rsyslogs_cookie_may_stand_before_the_object() -> None:
    event = decoded("laurel", [b"@cee: " + WRITTEN[1]])[0]
    assert (event.type, event.actor.name, event.outcome) == ("USER_AUTH", "bob", "failure")


@pytest.mark.parametrize(
    "record",
    ["", "[]", "{}", '{"ID":"1700000000.001:7"}', '{"ID":7,"SYSCALL":{}}', '{"ID":"x","A":{}}',
     '{"ID":"1700000000.001:7","SYSCALL":"no record"}', '{"ID":"1.000:1","SYSCALL":{}',
     "type=SYSCALL msg=audit(1.000:1): a=b"],
)  # fmt: skip
def test_what_is_no_event_of_laurels_is_kept_as_text(record: str) -> None:
    event = decoded("laurel", [record.encode()])[0]
    assert (event.type, event.message) == (UNPARSED, record)
