"""Parsers of messages that take nothing a format's rules do not allow, and each name once.

They are written by the letter of the specifications. Where somebody else's parser is to be had
(pycef, syslog-rfc5424-parser, rsyslog, syslog-ng, OCSF's schema) tests ask that one, too.
"""

from __future__ import annotations

import json
import re
import string
from datetime import datetime
from typing import Any


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """`object_pairs_hook` of `json.loads`: an AssertionError if a name comes twice."""
    found = dict(pairs)
    assert len(found) == len(pairs), f"a name comes twice: {[name for name, _ in pairs]}"
    return found


def parse_cef(line: str) -> tuple[list[str], dict[str, str]]:
    """Reads CEF by the letter: what the standard does not say is an error."""
    fields, at = [""], 0
    while len(fields) < 8:
        character = line[at]
        if character == "\\":
            assert line[at + 1] in "\\|", line
            fields[-1] += line[at + 1]
        elif character == "|":
            fields.append("")
        else:
            fields[-1] += character
        at += 2 if character == "\\" else 1
    assert fields.pop() == ""
    assert fields[0] == "CEF:0"
    extension: dict[str, str] = {}
    rest = line[at:]
    equals, escape = [], False
    for i, character in enumerate(rest):
        if character == "=" and not escape:
            equals.append(i)
        escape = character == "\\" and not escape
    starts = []
    for equal in equals:
        start = len(rest[:equal].rstrip(_KEY_CHARACTERS))
        assert start < equal, line
        assert start == 0 or rest[start - 1] == " ", line
        starts.append(start)
    ends = [start - 1 for start in starts[1:]] + [len(rest)]
    for start, equal, end in zip(starts, equals, ends, strict=True):
        assert rest[start:equal] not in extension
        extension[rest[start:equal]] = re.sub(r"\\(.?)", _unescaped, rest[equal + 1 : end])
    return fields, extension


_KEY_CHARACTERS = string.ascii_letters + string.digits + "_"


def _unescaped(match: re.Match[str]) -> str:
    return {"\\": "\\", "=": "=", "n": "\n", "r": "\r"}[match[1]]


def unescaped(value: str) -> str:
    return re.sub(r"\\([\"\\\]])", r"\1", value)


# RFC 5424, section 6, by the letter; in values a backslash stands only before what it escapes.
_NAME = r"[!#-<>-\\^-~]{1,32}"
_VALUE = r"(?:[^\"\\\]]|\\[\"\\\]])*"
_PARAM = re.compile(rf' ({_NAME})="({_VALUE})"')
_SYSLOG = re.compile(
    r"<([1-9]?\d|1[0-8]\d|19[01])>1 (\S+) "
    r"([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) "
    rf'\[(?P<id>{_NAME})(?P<sd>(?: {_NAME}="{_VALUE}")*)\](?: (?P<msg>.*))?',
    re.DOTALL,
)


def parse_rfc5424(line: str) -> tuple[list[str], list[tuple[str, str]], str | None]:
    """PRI to MSGID, the parameters with their escapes taken away, the message."""
    match = _SYSLOG.fullmatch(line)
    assert match is not None, line
    datetime.fromisoformat(match[2])
    assert match["id"] == "event@32473"
    params = [(name, unescaped(value)) for name, value in _PARAM.findall(match["sd"])]
    return list(match.groups()[:6]), params, match["msg"]


def parse_leef(line: str) -> tuple[list[str], dict[str, str]]:
    """Header fields and attributes ("LEEF event components"); else an AssertionError."""
    assert not re.search(r"[\r\n\0]", line)
    version, rest = line.split("|", 1)
    assert version in ("LEEF:1.0", "LEEF:2.0")
    *header, rest = rest.split("|", 4)
    assert len(header) == 4
    assert all(header)
    delimiter = "\t"
    if version == "LEEF:2.0":
        written, rest = rest.split("|", 1)
        delimiter = chr(int(written[1:], 16)) if len(written) > 1 else written
        assert len(written) == 1 or re.fullmatch("x[0-9A-F]{2}", written)
    attributes: dict[str, str] = {}
    for pair in rest.split(delimiter):
        key, value = pair.split("=", 1)
        assert re.fullmatch(r"[A-Za-z0-9_]+", key)
        assert key not in attributes, "QRadar drops the value of a key that comes twice"
        attributes[key] = value
    return [version, *header], attributes


def parse_gelf(message: bytes) -> dict[str, Any]:
    """The fields of a message; an AssertionError if it is no GELF 1.1."""
    assert b"\0" not in message, "NUL ends a message on TCP"
    fields: dict[str, Any] = json.loads(message, object_pairs_hook=once)
    assert fields["version"] == "1.1"
    for name in ("host", "short_message"):
        assert isinstance(fields[name], str)
        assert fields[name].strip(), "Graylog refuses a blank one"
    assert isinstance(fields.get("full_message", ""), str)
    assert isinstance(fields["timestamp"], (int, float))
    assert fields["level"] in range(8)
    own = {"version", "host", "short_message", "full_message", "timestamp", "level"}
    # Set by Graylog of the above: it drops the additional fields of these names.
    taken = {"_id", "_source", "_message", "_timestamp", "_level", "_full_message", "_streams"}
    for name in fields.keys() - own:
        assert re.fullmatch(r"_[\w.-]*", name, re.ASCII), name
        assert name not in taken
        assert isinstance(fields[name], (str, int, float))
        assert not isinstance(fields[name], bool)
        if isinstance(fields[name], int):
            assert -(2**63) <= fields[name] < 2**63
    return fields
