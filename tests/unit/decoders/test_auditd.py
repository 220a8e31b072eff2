"""Linux audit events, decoded as `ausearch --interpret` of audit 3.0.9 decodes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from siemrelay import registry
from siemrelay.core.event import FIELDS, AuditEvent, attributes_of
from siemrelay.core.event_types import UNPARSED, Catalogue
from siemrelay.core.lines import records_of
from siemrelay.decoders.auditd.records import socket_address
from siemrelay.products.product import BUILT_IN
from siemrelay.wire.framing.audit_events import AuditSplitter
from siemrelay.wire.framing.contract import Rest
from tests.support.events.strategies import batch_of

LOG = (Path(__file__).parents[2] / "corpus" / "audit.log").read_bytes()
EVERYTHING = frozenset({*FIELDS, "attributes"})


def decoded(*records: bytes) -> list[AuditEvent]:
    kind = registry.DECODERS["auditd"]
    made = kind.build(BUILT_IN["generic"].spellings, EVERYTHING, Catalogue(), max_time_past=1e10)
    return list(made.decode(batch_of(list(records))).events)


def events() -> dict[str, AuditEvent]:
    """The events of the log by their serials."""
    chunk = AuditSplitter(at_start=True).split(LOG, Rest.FINAL)
    assert chunk is not None
    assert not chunk.apart, "no record has a line feed inside"
    found = decoded(*records_of(chunk.payload, chunk.count))
    return {attributes_of(event)["serial"]: event for event in found}


EVENTS = events()


@pytest.mark.parametrize(
    ("serial", "wanted"),
    [
        ("24287", ("SYSCALL", "failure", None, "500", "file", "/etc/ssh/sshd_config")),
        ("501", ("EXECVE", "success", "ada", "1000", "process", "/usr/bin/dash")),
        ("502", ("SYSCALL", "success", None, "33", "socket", "93.184.216.34:443")),
        ("503", ("USER_AUTH", "failure", "bob", None, "user", "bob")),
        ("504", ("USER_CMD", "success", None, "1000", "command", 'cat "x" ')),
        ("505", ("SERVICE_START", "success", "root", "0", "service", "cron")),
        ("506", ("AVC", "failure", None, "48", "file", "/etc/shadow")),
        ("507", ("DAEMON_START", "success", "root", "0", None, None)),
        ("508", ("LOGIN", "success", None, "1000", None, None)),
        ("509", ("CONFIG_CHANGE", "success", None, "1000", None, None)),
    ],
)
def test_an_audit_event_says_who_did_what_to_what(serial: str, wanted: tuple[Any, ...]) -> None:
    event = EVENTS[serial]
    actor, target = event.actor, event.target
    assert (event.type, event.outcome, actor.name, actor.id, target.type, target.name) == wanted


def test_an_audit_event_has_its_time_its_command_and_the_address_of_its_actor() -> None:
    assert EVENTS["24287"].time == "2013-03-28T14:36:03.243Z"
    assert EVENTS["24287"].message == "cat /etc/ssh/sshd_config"
    assert EVENTS["501"].message == 'sh -c echo "hi there" && rm'
    assert EVENTS["503"].actor.address == "10.0.0.7"
    assert str(EVENTS["506"].message).startswith("avc:  denied  { read write } for")


def test_what_the_kernel_encodes_is_decoded() -> None:
    open_, exec_, connect, avc = (
        attributes_of(EVENTS[serial]) for serial in ("24287", "501", "502", "506")
    )
    assert (open_["syscall"]["arch"], open_["syscall"]["syscall"]) == ("x86_64", "open")
    assert open_["syscall"]["key"] == "sshd_config"
    assert open_["path"]["name"] == "/etc/ssh/sshd_config"
    assert exec_["execve"]["argv"] == ["sh", "-c", 'echo "hi there" && rm']
    assert exec_["names"]["uid"] == "root"
    assert (connect["syscall"]["arch"], connect["syscall"]["syscall"]) == ("aarch64", "connect")
    assert connect["syscall"]["comm"] == "nginx worker"
    assert connect["syscall"]["key"] == ["net", "out"]
    assert connect["sockaddr"]["saddr"] == {
        "family": "inet", "address": "93.184.216.34", "port": 443,
    }  # fmt: skip
    assert avc["avc"]["permissions"] == ["read", "write"]


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("020001BB5DB8D8220000000000000000",
         {"family": "inet", "address": "93.184.216.34", "port": 443}),
        ("0002001600000000", {"family": "inet", "address": "0.0.0.0", "port": 22}),
        ("0A000050" + "00" * 4 + "00" * 15 + "01" + "00" * 4,
         {"family": "inet6", "address": "::1", "port": 80}),
        ("01002F72756E2F782E736F636B00", {"family": "local", "path": "/run/x.sock"}),
        ("0100006162", {"family": "local", "path": "ab"}),
        ("100000000000000000000000", {"family": "netlink", "data": "100000000000000000000000"}),
        ("FF00", None), ("", None), ("02", {"family": "inet", "data": "02"}), ("0200zz", None),
    ],
)  # fmt: skip
def test_a_socket_address_is_read(written: str, wanted: dict[str, Any] | None) -> None:
    assert socket_address(written) == wanted


def test_a_program_cannot_write_the_record_of_another() -> None:
    forged = (
        b'type=USER_AUTH msg=audit(1700000002.000:9): pid=1 uid=0 auid=1000 msg=\'op=x acct="a" '
        b"type=SYSCALL msg=audit(1700000002.000:9): auid=0 success=yes res=failed'"
    )
    (event,) = decoded(forged)
    assert (event.type, event.actor.id, event.actor.name) == ("USER_AUTH", "1000", None)
    assert list(attributes_of(event)) == ["serial", "user_auth"]


def test_a_line_that_is_no_audit_record_is_an_unparsed_record() -> None:
    for record in (b"Nov 20 08:00:00 host sshd: type=SYSCALL", b"", b"type=SYSCALL msg=audit(1:2)"):
        (event,) = decoded(record)
        assert event.type == UNPARSED


def test_arguments_in_several_lines_and_pieces_are_one_command() -> None:
    (event,) = decoded(
        b'type=EXECVE msg=audit(1700000000.000:1): argc=3 a0="x" a1_len=8 a1[0]=6161 '
        b"type=EXECVE msg=audit(1700000000.000:1): a1[1]=6262 a2=(null) "
        b"node=h type=EXECVE msg=audit(1700000000.000:1): a0=7920"
    )
    argv = [part["argv"] for part in attributes_of(event)["execve"]]
    assert argv == [["x", "aa"], ["bb", "(null)"], ["y "]]
    assert json.dumps(attributes_of(event))
