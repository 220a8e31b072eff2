"""Linux audit events → events: who did what to what, and whether it went well."""

from __future__ import annotations

import posixpath
from typing import Any, Final

from siemrelay.core.event_types import Catalogue
from siemrelay.decoders.auditd.records import ABSENT, AuditLine, audit_lines, readable
from siemrelay.decoders.contract import (
    MAX_TIME_AHEAD_S,
    MAX_TIME_PAST_S,
    Decoder,
    DecoderKind,
    TimeBoundOptions,
)
from siemrelay.decoders.field_records import FieldsDecoder
from siemrelay.decoders.fields import Spellings
from siemrelay.wire.framing.audit_events import AuditEvents
from siemrelay.wire.framing.contract import Framing

# Records that say more about an event of another type.
_ABOUT: Final = frozenset({
    "SYSCALL", "CWD", "PATH", "PROCTITLE", "EOE", "SOCKADDR", "SOCKETCALL", "FD_PAIR", "OBJ_PID",
    "IPC", "MMAP", "OPENAT2", "CAPSET", "BPRM_FCAPS", "MQ_OPEN", "MQ_SENDRECV", "MQ_NOTIFY",
    "MQ_GETSETATTR", "IPC_SET_PERM", "TIME_INJOFFSET", "TIME_ADJNTPVAL", "URINGOP", "DM_CTRL",
})  # fmt: skip

# Messages about somebody who logs in: without a login of the process it is they who act.
_LOGINS: Final = frozenset({
    "USER_AUTH", "USER_ACCT", "USER_LOGIN", "USER_LOGOUT", "USER_START", "USER_END", "USER_ERR",
    "CRED_ACQ", "CRED_DISP", "CRED_REFR", "CHGRP_ID", "LOGIN", "ANOM_LOGIN_FAILURES",
})  # fmt: skip

_OUTCOMES: Final = {
    "success": "success", "yes": "success", "1": "success", "failed": "failure", "no": "failure",
    "0": "failure", "granted": "success", "denied": "failure",
}  # fmt: skip
_ROOT: Final = "0"
_MOST_SHOWN: Final = 1024


def audit_event(record: str) -> dict[str, Any] | None:
    """The values of an event under their names, the fields of its records as attributes."""
    lines = audit_lines(record)
    return event_of_lines(lines) if lines else None


def event_of_lines(lines: list[AuditLine]) -> dict[str, Any]:
    """The event that one or more lines of one serial are; `attributes` has each of them."""
    main = next((line for line in lines if line.type not in _ABOUT), lines[0])
    said: dict[str, Any] = {}
    meanings: dict[str, str] = {}
    for line in (main, *lines):
        for name, value in line.fields.items():
            if type(value) is not str or value not in ABSENT:
                said.setdefault(name, value)
        for name, value in line.meanings.items():
            meanings.setdefault(name, value)
    if "syscall" in meanings:  # what this machine calls it
        said["syscall"] = meanings["syscall"]
    found = {
        "type": main.type,
        "time": main.time,
        "outcome": _outcome(said),
        "message": _message(main, said),
        **_actor(main, said, meanings),
        **_target(main, lines, said),
        "attributes": _attributes(main, lines, meanings),
    }
    return {name: value for name, value in found.items() if value is not None}


def _outcome(said: dict[str, Any]) -> str | None:
    given = said.get("success") or said.get("res") or said.get("result") or said.get("avc")
    return _OUTCOMES.get(given) if type(given) is str else None


def _message(main: AuditLine, said: dict[str, Any]) -> str:
    """The message for a person: the command, or the record's own text."""
    argv = said.get("argv")
    command = " ".join(argv) if argv else said.get("proctitle")
    text = str(command) if command and main.type in ("EXECVE", "SYSCALL") else readable(main.text)
    return text[:_MOST_SHOWN]


def _actor(main: AuditLine, said: dict[str, Any], meanings: dict[str, str]) -> dict[str, Any]:
    """The user who logged in, also as another user since; else the owner of the process."""
    which = "auid" if "auid" in said else "uid"
    number, account = said.get(which), said.get("acct")
    name = meanings.get(which) or ("root" if number == _ROOT else None)
    if which == "uid" and main.type in _LOGINS and account is not None:
        number, name = said.get("id"), account
    address = said.get("addr") or said.get("hostname")
    return {"actor.id": number, "actor.name": name, "actor.address": address}


def _target(main: AuditLine, lines: list[AuditLine], said: dict[str, Any]) -> dict[str, Any]:
    """The object of the action: a unit, an account, a command, an address, a file."""
    if "unit" in said and main.type.startswith("SERVICE_"):
        return _of("service", said["unit"])
    if "argv" in said:
        return _of("process", said.get("exe") or said["argv"][0])
    if main.type == "USER_CMD":
        return _of("command", said.get("cmd"))
    address = said.get("saddr")
    if type(address) is dict:
        port = f":{address['port']}" if "port" in address else ""
        name = address.get("address") or address.get("path")
        if address.get("family") == "inet6" and name:
            name = f"[{name}]"
        return _of("socket", f"{name}{port}" if name else None)
    paths = [line.fields for line in lines if line.type == "PATH"]
    if paths:
        own = [path for path in paths if path.get("nametype") != "PARENT"] or paths
        name = own[-1].get("name")
        cwd = said.get("cwd")
        if name is not None and type(cwd) is str and not name.startswith("/"):
            name = posixpath.normpath(posixpath.join(cwd, name))
        return _of("file", name)
    if "acct" in said or "id" in said:
        return {**_of("user", said.get("acct")), "target.id": said.get("id")}
    return _of("file", said.get("path") or said.get("exe"))


def _of(kind: str, name: Any) -> dict[str, Any]:
    if type(name) is not str or name in ABSENT:
        return {}
    return {"target.type": kind, "target.name": name}


def _attributes(
    main: AuditLine, lines: list[AuditLine], meanings: dict[str, str]
) -> dict[str, Any]:
    """Every record by its type, several of one type as a list."""
    found: dict[str, Any] = {"serial": main.serial}
    if main.node is not None:
        found["node"] = main.node
    if meanings:
        found["names"] = meanings
    for line in lines:
        if line.type == "EOE":
            continue
        name, fields = line.type.lower(), line.fields or {"text": line.text}
        before = found.get(name)
        if before is None:
            found[name] = fields
        elif isinstance(before, list):
            before.append(fields)
        else:
            found[name] = [before, fields]
    return found


def _built(
    spellings: Spellings, wanted: frozenset[str], catalogue: Catalogue,
    max_time_past: float = MAX_TIME_PAST_S, max_time_ahead: float = MAX_TIME_AHEAD_S,
) -> Decoder:  # fmt: skip
    return FieldsDecoder(audit_event, spellings, wanted, catalogue, max_time_past, max_time_ahead)


def _framing(options: TimeBoundOptions, max_record_bytes: int) -> Framing:
    return AuditEvents(max_record_bytes)


AUDITD: Final = DecoderKind(
    TimeBoundOptions, _built,
    "the log of Linux' auditd: the lines of one event together, with their values decoded",
    _framing, lambda record: "it does not begin with type=TYPE msg=audit(TIME:SERIAL):",
)  # fmt: skip
