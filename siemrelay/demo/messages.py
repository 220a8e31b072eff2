"""Parses the messages of the three formats as the demo's receivers do.

Written from the standards, without the relay's own code: a count proves something only if
independent code does the reading.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Final

from siemrelay.demo.ledger import Arrival

# RFC 5424, 6: header and the first structured data element; 6.3.3: what is escaped in a value.
_SYSLOG: Final = re.compile(
    r"<\d{1,3}>1 (\S+) \S+ \S+ \S+ \S+ \[\S+((?: [^ =]+=\"(?:\\.|[^\"\\])*\")*)\]"
)
_PARAMETER: Final = re.compile(r" ([^ =]+)=\"((?:\\.|[^\"\\])*)\"")
_SYSLOG_ESCAPE: Final = re.compile(r"\\([\"\\\]])")

# CEF: seven header fields parted by `|`, then key=value pairs; `\` escapes in both.
_CEF: Final = re.compile(r"CEF:0((?:\|(?:\\.|[^|\\])*){6})\|(.*)", re.DOTALL)
_CEF_PAIR: Final = re.compile(r"(?:^| )(\w+)=((?:\\.|[^=\\])*)(?= \w+=|$)")
_CEF_ESCAPE: Final = re.compile(r"\\(.)")


def read_syslog(message: bytes) -> Arrival | None:
    """An RFC 5424 message whose structured data has the event; None if it is not one."""
    match = _SYSLOG.match(message.decode("utf-8", "replace"))
    if match is None:
        return None
    pairs = _PARAMETER.findall(match[2])
    values = {name: _SYSLOG_ESCAPE.sub(r"\1", value) for name, value in pairs}
    return _arrival(values.get("id"), match[1])


def read_cef(message: bytes) -> Arrival | None:
    """A CEF line, with or without a syslog header; None if it is not one."""
    match = _CEF.search(message.decode("utf-8", "replace"))
    if match is None:
        return None
    values = {key: _CEF_ESCAPE.sub(r"\1", value) for key, value in _CEF_PAIR.findall(match[2])}
    return _arrival(values.get("externalId"), values.get("rt", ""))


def read_json(line: bytes) -> Arrival | None:
    """A line of an NDJSON body; None if it is not an event."""
    try:
        found = json.loads(line)
        return _arrival(found["id"], found["time"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _arrival(identity: str | None, time: str) -> Arrival | None:
    if not isinstance(identity, str):
        return None
    try:
        # CEF's rt is in milliseconds since the epoch, the other formats' time is RFC 3339.
        moment = int(time) / 1000 if time.isdecimal() else datetime.fromisoformat(time).timestamp()
    except ValueError:
        return None
    return Arrival(identity, moment)
