"""Lines of a Linux audit log → their fields, with what the kernel encodes decoded.

The kernel and auditd write `name=value`. A text that somebody else chose (a path, a command, an
account) is quoted, or in hexadecimal if it has a space, a quote or a control character; so nobody
can write a field into a line. A program's message has its own fields in `msg='…'`. In the log
format `ENRICHED` auditd appends what numbers mean on this machine, behind a control character and
in capitals. (audit(8) documentation, "Audit Event Fields"; libaudit's `interpret.c` for encodings.)
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

import msgspec

from siemrelay.decoders.auditd.numbers import ADDRESS_FAMILIES, ARCHITECTURES, SYSTEM_CALLS

_HEAD: Final = re.compile(
    r"(?:node=(?P<node>\S{1,256}) )?type=(?P<type>[\w\[\]]{1,64}) "
    r"msg=audit\((?P<time>\d{1,12}\.\d{1,9}):(?P<serial>\d{1,20})\) ?: ?",
    re.ASCII,
)
_FIELD: Final = re.compile(
    r"""([A-Za-z_][\w.\[\]-]*)=("[^"]*"|'[^']*'|\{[^}]{0,512}\}|[^\s"']\S*|)"""
)
_MESSAGE: Final = re.compile(r"\bmsg='(.*)'?\s*\Z", re.DOTALL)
_ENRICHED: Final = "\x1d"
_AVC: Final = re.compile(r"avc: +(denied|granted) +\{ ([^}]*) \}")
_HEX: Final = re.compile(r"(?:[0-9A-F]{2})+")
_FIELD_IN_HEX: Final = re.compile(r"(?<![\w.-])([A-Za-z_]\w{0,31})=((?:[0-9A-F]{2})+)(?![^\s'])")
_ARGUMENT: Final = re.compile(r"a(\d+)(?:\[(\d+)\])?")

_ENCODED: Final = frozenset({
    "acct", "apparmor", "cgroup", "cmd", "comm", "cwd", "data", "denied_mask", "device", "dir",
    "exe", "file", "fs_name", "grp", "info", "key", "name", "name2", "new", "new_group", "ocomm",
    "old", "op_text", "path", "proctitle", "profile", "root_dir", "sw", "unit", "vm", "watch",
})  # fmt: skip
"""Fields that may be in hexadecimal (lib/auparse's `typetab.h`: "escaped")."""

ABSENT: Final = frozenset({
    "", "?", "(null)", "(none)", "none", "unset", "4294967295", "-1", "unknown(4294967295)",
})  # fmt: skip
"""Values that stand for none: no login, no name, no terminal."""

_UNKNOWN: Final = "unknown("  # written for a number that has no name on the machine


def is_meaning(value: str) -> bool:
    """Whether what auditd writes as the meaning of a number is one."""
    return value not in ABSENT and not value.startswith(_UNKNOWN)


# A line of more fields is no audit record of the kernel, whose arguments come in several lines.
_MOST_FIELDS: Final = 2000


class AuditLine(msgspec.Struct, frozen=True):
    """One line: its record type, its fields, and what auditd says numbers mean here."""

    type: str
    time: str
    serial: str
    node: str | None
    fields: dict[str, Any]
    meanings: dict[str, str]
    """Of enriched logs: the field's name in lower case → the name of its number."""
    text: str
    """The text behind the head."""


def is_audit_line(text: str) -> bool:
    """Whether a text begins as a line of Linux' audit log does."""
    return text.startswith(("type=", "node=")) and _HEAD.match(text) is not None


def audit_lines(record: str) -> list[AuditLine]:
    """The lines of a record as `wire.framing.audit_events` joins them; none if it is no event."""
    head = _HEAD.match(record)
    if head is None:
        return []
    if " msg='" in record:  # text inside cannot begin another line
        return [_line(head, record[head.end() :])]
    # Lines of one event have one time and one serial.
    heads = [
        found
        for found in _HEAD.finditer(record)
        if found["serial"] == head["serial"] and found["time"] == head["time"]
    ]
    ends = [found.start() for found in heads[1:]]
    return [
        _line(found, record[found.end() : end].rstrip())
        for found, end in zip(heads, [*ends, len(record)], strict=True)
    ]


def _line(head: re.Match[str], text: str) -> AuditLine:
    own, _, enriched = text.partition(_ENRICHED)
    fields = _fields(own, head["type"])
    meanings = {
        name.lower(): value.strip('"')
        for name, value in _FIELD.findall(enriched)[:_MOST_FIELDS]
        if name.isupper() and is_meaning(value.strip('"'))
    }
    return AuditLine(
        head["type"], head["time"], head["serial"], head["node"], fields, meanings, own.rstrip()
    )


def _fields(text: str, kind: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    message = _MESSAGE.search(text) if "msg='" in text else None
    inner = ""
    if message is not None:
        text, inner = text[: message.start()], message[1].rstrip().removesuffix("'")
    arguments: dict[int, str] = {}
    for name, written in (
        *_FIELD.findall(text)[:_MOST_FIELDS],
        *_FIELD.findall(inner)[:_MOST_FIELDS],
    ):
        argument = _ARGUMENT.fullmatch(name) if kind == "EXECVE" else None
        if argument is not None:
            number = int(argument[1])
            arguments[number] = arguments.get(number, "") + _decoded(written)
        elif name not in fields and not (kind == "EXECVE" and name.endswith("_len")):
            # What comes twice counts the first time: nobody behind it can change it.
            fields[name] = _decoded(written) if name in _ENCODED else written.strip("\"'")
    if arguments:
        fields["argv"] = [arguments[number] for number in sorted(arguments)]
    avc = _AVC.search(text) if "avc:" in text else None
    if avc is not None:
        fields["avc"], fields["permissions"] = avc[1], avc[2].split()
    return meaningful(fields)


def message_fields(fields: dict[str, Any], message: str) -> dict[str, Any]:
    """The fields of a record and, behind them, those of a program's message (`msg`) in it."""
    return _fields(f"msg='{message}'", "") | fields


def _decoded(written: str) -> str:
    if written[:1] in "\"'" or not _HEX.fullmatch(written):
        return written.strip("\"'")
    return bytes.fromhex(written).decode("utf-8", "replace")


def readable(text: str) -> str:
    """The text of a line with the values in hexadecimal decoded and quoted."""

    def plain(field: re.Match[str]) -> str:
        name, written = field.groups()
        if name not in _ENCODED:
            return field[0]
        return f'{name}="{_decoded(written)}"'.replace("\0", " ")

    return _FIELD_IN_HEX.sub(plain, text)


def meaningful(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields with the kernel's numbers named; numbers of this machine stay numbers."""
    if (arch := fields.get("arch")) is not None:
        name = fields["arch"] = ARCHITECTURES.get(arch, arch)
        number = fields.get("syscall", "")
        fields["syscall"] = SYSTEM_CALLS.get(name, {}).get(number, number)
    if "proctitle" in fields:
        fields["proctitle"] = fields["proctitle"].replace("\0", " ").rstrip()
    if "\x01" in fields.get("key", ""):
        fields["key"] = fields["key"].split("\x01")
    if (address := socket_address(fields.get("saddr", ""))) is not None:
        fields["saddr"] = address
    return fields


def socket_address(written: str) -> dict[str, Any] | None:
    """`struct sockaddr` in hexadecimal; None if it is none of a known family."""
    if not _HEX.fullmatch(written):
        return None
    raw = bytes.fromhex(written)
    # In the machine's byte order; no family is over 255.
    number = raw[0] or (raw[1] if len(raw) > 1 else 0)
    family = ADDRESS_FAMILIES.get(number)
    if family == "inet" and len(raw) >= 8:
        return {"family": family, "address": str(IPv4Address(raw[4:8])),
                "port": int.from_bytes(raw[2:4], "big")}  # fmt: skip
    if family == "inet6" and len(raw) >= 24:
        return {"family": family, "address": str(IPv6Address(raw[8:24])),
                "port": int.from_bytes(raw[2:4], "big")}  # fmt: skip
    if family == "local":
        path = raw[2:].lstrip(b"\0").split(b"\0")[0]
        return {"family": family, "path": path.decode("utf-8", "replace")}
    return None if family is None else {"family": family, "data": written}
