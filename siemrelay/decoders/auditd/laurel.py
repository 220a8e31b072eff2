"""Linux audit events that LAUREL has written as JSON, one object a line, → events.

LAUREL is a plugin of auditd. Its objects have the audit records of one event by their types, each
an object or a list of them. Names in lower case are the record's own fields, decoded; those in
capitals are what LAUREL or auditd added: the meaning of a number (`UID`), the arguments as a list
(`ARGV`), the processes around (`PPID`, `PARENT_INFO`). A program's message stays a text in `msg`.
(laurel-about(7), "Output format".)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from siemrelay.core.event_types import Catalogue
from siemrelay.decoders.auditd.decoder import event_of_lines
from siemrelay.decoders.auditd.records import AuditLine, is_meaning, meaningful, message_fields
from siemrelay.decoders.contract import (
    MAX_TIME_AHEAD_S,
    MAX_TIME_PAST_S,
    Decoder,
    DecoderKind,
    TimeBoundOptions,
)
from siemrelay.decoders.field_records import FieldsDecoder
from siemrelay.decoders.fields import Spellings

_COOKIE: Final = "@cee:"  # LAUREL's `line-prefix`, by which rsyslog's mmjsonparse knows JSON
_ID: Final = re.compile(r"(\d{1,12}\.\d{1,9}):(\d{1,20})", re.ASCII)
_TYPE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}(?:\[\d{1,6}\])?", re.ASCII)
_HEAD: Final = frozenset({"ID", "NODE"})
_NO_RECORDS: Final = _HEAD | {"PARENT_INFO"}
_READ: Final = frozenset({"ARGV", "ARGV_STR", "SADDR"})
_ADDRESS: Final = {"saddr_fam": "family", "addr": "address"}
_KEYS: Final = "%01"  # stands between the keys of the rules that an event fits

# As many records as the kernel writes of one system call, with room: each costs a step.
_MOST_RECORDS: Final = 2000


def laurel_event(record: str) -> dict[str, Any] | None:
    """The values of an event, as `auditd.decoder.audit_event` finds them in auditd's own lines."""
    try:
        found = msgspec.json.decode(record.removeprefix(_COOKIE))
    except (msgspec.DecodeError, RecursionError):
        return None
    written = found.get("ID") if type(found) is dict else None
    stamp = _ID.fullmatch(written) if type(written) is str else None
    if stamp is None:
        return None
    node = found.get("NODE")
    lines = [
        _line(kind, body, stamp, node if type(node) is str else None)
        for kind, body in _records(found)
    ]
    if not lines or len(lines) > _MOST_RECORDS:
        return None
    event = event_of_lines(lines)
    # What LAUREL adds to the event is no record; what is of no record's form is lost neither.
    event["attributes"] |= {
        name: value
        for name, value in found.items()
        if name not in _HEAD and not _is_records(name, value)
    }
    return event


def _is_records(name: str, value: Any) -> bool:
    if _TYPE.fullmatch(name) is None or name in _NO_RECORDS:
        return False
    return type(value) is dict or (
        type(value) is list and bool(value) and all(type(each) is dict for each in value)
    )


def _records(found: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, value in found.items():
        if _is_records(name, value):
            for body in value if type(value) is list else [value]:
                yield name, body


def _line(kind: str, body: dict[str, Any], stamp: re.Match[str], node: str | None) -> AuditLine:
    own = {name: value for name, value in body.items() if value is not None}
    meanings = {
        name.lower(): value
        for name, value in own.items()
        if name.isupper() and type(value) is str and name not in _READ and is_meaning(value)
    }
    decision = _decision(own)
    given = {
        name: _text(value)
        for name, value in own.items()
        if not name.isupper() and name != decision.get("avc")
    }
    text = given.get("msg")
    fields: dict[str, Any]
    if text is not None:
        fields = message_fields(given, text)
    else:
        fields = given
        text = " ".join(
            f"{name}={_shown(value)}" for name, value in own.items() if not name.isupper()
        )
    if "arch" in given:
        fields["arch"] = given["arch"].removeprefix("0x")
    fields = meaningful(fields)
    if _KEYS in given.get("key", ""):
        fields["key"] = given["key"].split(_KEYS)
    # What LAUREL added to the record and is no name of a number.
    added = {name: value for name, value in own.items() if name.isupper() and name not in _READ}
    fields |= {name: value for name, value in added.items() if type(value) is not str}
    return AuditLine(
        kind, stamp[1], stamp[2], node, fields | decision | _arguments(kind, own) | _address(own),
        meanings, text,
    )  # fmt: skip


def _text(value: Any) -> str:
    return value if type(value) is str else _shown(value)


def _shown(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _arguments(kind: str, own: dict[str, Any]) -> dict[str, Any]:
    """The command line of EXECVE and PROCTITLE, which LAUREL writes as a list, a text or both."""
    argv, joined = own.get("ARGV"), own.get("ARGV_STR")
    if type(argv) is list and argv:
        argv = [_text(each) for each in argv]
    elif type(joined) is str:
        argv = [joined]
    else:
        return {}
    if kind == "PROCTITLE":
        return {"proctitle": " ".join(argv)}
    # a0 to a3 of a system call are numbers, and no command line.
    return {"argv" if kind == "EXECVE" else "arguments": argv}


def _decision(own: dict[str, Any]) -> dict[str, Any]:
    """The decision of an AVC and its permissions."""
    for decision in ("denied", "granted"):
        if type(own.get(decision)) is list:
            return {"avc": decision, "permissions": own[decision]}
    return {}


def _address(own: dict[str, Any]) -> dict[str, Any]:
    """The address of a socket, taken apart by LAUREL; auditd's own enrichment is a text."""
    address = own.get("SADDR")
    if type(address) is dict:
        return {"saddr": {_ADDRESS.get(name, name): value for name, value in address.items()}}
    return {"saddr": address} if type(address) is str else {}


def _built(
    spellings: Spellings, wanted: frozenset[str], catalogue: Catalogue,
    max_time_past: float = MAX_TIME_PAST_S, max_time_ahead: float = MAX_TIME_AHEAD_S,
) -> Decoder:  # fmt: skip
    return FieldsDecoder(laurel_event, spellings, wanted, catalogue, max_time_past, max_time_ahead)


LAUREL: Final = DecoderKind(
    TimeBoundOptions, _built,
    "the JSON of LAUREL, a plugin of Linux' auditd: as `auditd`",
    why=lambda record: "it is not an object of LAUREL's, which has the ID of an audit event",
)  # fmt: skip
