"""Syslog headers, RFC 5424 and RFC 3164 with the deviations that are met in the field.

What does not fit a header is part of the message: nothing is refused here.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo
from typing import Final, Literal, NamedTuple

import msgspec

from siemrelay.decoders.fields import first_of_each
from siemrelay.decoders.snare import BEGINNINGS as SNARE_BEGINNINGS
from siemrelay.decoders.times import MONTH, ZONE, placed, written_time

# Facility 23, severity 7 (RFC 5424, 6.2.1).
_MOST_PRI: Final = 191
_PRI: Final = re.compile(r"\s{0,8}<(\d{1,3})>")

# RFC 5424, 6: VERSION SP TIMESTAMP SP HOSTNAME SP APP-NAME SP PROCID SP MSGID SP, then the data.
# Check Point writes a space for the `T`.
_SENDER: Final = r"(\S{1,255}) (\S{1,255}) (\S{1,128}) (\S{1,255})"
_RFC5424: Final = re.compile(
    r"\d{1,2} (-|\d{4}-\d\d-\d\d(?:[Tt]\S{8,32}| \d\d:\d\d:\d\d\S{0,32})) "
    rf"{_SENDER}(?: |$)"
)
_RFC5424_SENDER: Final = re.compile(_SENDER)
_ELEMENT: Final = re.compile(
    r'\[([^ =\]"]{1,255})((?: +[^ =\]"]{1,255}="(?:[^"\\]|\\.)*+")*+) *\]', re.DOTALL
)
# ESXi's, without quotes. Only a name with an enterprise number is taken for one.
_UNQUOTED: Final = re.compile(
    r"\[([^ =\]\"@]{1,200}@\d{1,20})((?: +[\w.-]{1,255}=[^\s\]\"]{0,1024})+) *\](?= |$)"
)
_PARAM: Final = re.compile(r'([^ =\]"]{1,255})="((?:[^"\\]|\\.)*+)"', re.DOTALL)
_ESCAPED: Final = re.compile(r'\\(["\\\]])')

# Cisco's `%FACILITY-SEVERITY-MNEMONIC: `; some versions leave the colon out, or a space before it.
# NX-OS may name its virtual device before it. The second group, where other tags have a process id,
# matches nothing.
_CISCO_TAG: Final = re.compile(
    r"(?:%\$ ?VDC[ -]\d{1,4} ?%\$ )?%([A-Z][\w-]{1,64}-[0-7]-\w{1,64})((?!))?(?: ?:(?: |$)| )",
    re.ASCII,
)
# What Cisco puts before the time: a count of messages, the host (`logging origin-id`), a sequence
# number, each with a colon, the node of IOS-XR (the host before it) or a line card; or a lone colon
# (ASA's EMBLEM, NX-OS). In place of the time there may be the time since the start, or nothing.
_NODE: Final = r"(?:[A-Z][A-Z0-9]{0,15}(?: \d{1,3})?|\d{1,3})(?:/[A-Za-z0-9]{1,16})"
_CISCO_TIME: Final = rf"[*.]?(?:\d{{4}}[ -])?(?:\d\d|{MONTH})[ -:]"
_CISCO: Final = re.compile(
    rf"(?:: ?|{_NODE}{{2,4}}: ?|"
    r"\d{1,10}: (?:(?!\d\d:|\d{1,5}[ywdhm])(?P<host>[^\s<>=\"/]{1,255})"
    rf"(?: ?: | (?={_NODE}{{2,4}}:)))?(?:\d{{1,10}}: )?"
    rf"(?:{_NODE}{{1,4}}: ?)?)"
    rf"(?={_CISCO_TIME}|(?:\d{{1,5}}[ywdhm])|%[A-Z$])"
)
# The host in front without a count: NX-OS before its time, ASA (`logging device-id`) before its tag
# with a space before the colon, which no program's name has.
_ORIGIN: Final = re.compile(
    rf"(?P<host>[^\s<>=\"/%{{}}|]{{1,255}})(?: ?: (?={_CISCO_TIME})| : (?=%[A-Z$]))"
)
# Whoever sets the clock of a device names its zone; one that is not in `ZONES` is the source's.
_NAMED_ZONE: Final = re.compile(r"[A-Za-z]{1,7}: (?=(?:[\w.-]{1,64}\[\d{1,10}\]: )?%[A-Z$])")
_UPTIME: Final = re.compile(r"(?:(?:\d{1,5}[ywdhm]){1,4}|\d\d:\d\d:\d\d(?:\.\d{1,9})?): ")
# `Oct 11 22:14:15`, with what devices add: a star before it (Cisco), a weekday, a year on either
# side, a fraction, a zone, a colon.
_BSD: Final = re.compile(
    rf"[*.]?(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) )?(?:(?P<before>\d{{4}}) )?(?P<month>{MONTH})"
    r" {1,2}(?P<day>\d{1,2}) (?:(?P<after>\d{4}) )?(?P<clock>\d\d:\d\d:\d\d)"
    rf"(?P<fraction>[.,]\d{{1,9}})?(?: (?P<zone>{ZONE})(?=[ :]))?"
    r"(?: (?P<last>\d{4})(?=[ :]))?:?(?: |$)"
)
_ISO: Final = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
    r"(?P<zone>[Zz]|[+-]\d\d:?\d\d)?):?(?: |$)"
)
# Cisco Meraki: a version as in RFC 5424, seconds since 1970, a host, and then what it likes.
_EPOCH: Final = re.compile(r"1 (\d{9,10}\.\d{1,9}) ")
# TAG is what ends with a colon, or has a process id in brackets; Cisco's begins with `%`.
_TAG: Final = re.compile(r"%?([^\s:\[\]<>{}\"=|]{1,128})(?:\[([^\[\]\s]{1,64})\])?:(?: |$)")
# A tag without the space behind its colon; what looks like a URL or a path is none.
_GLUED_TAG: Final = re.compile(r"([A-Za-z][\w./-]{0,47})(?:\[(\d{1,10})\])?:(?=[^\s/\\:])")
# A tag without a colon, as rsyslog's ForwardFormat writes those of imfile.
_BARE_TAG: Final = re.compile(r"([A-Za-z][\w./-]{0,47})(?:\[(\d{1,10})\])? ")
_HOST: Final = re.compile(r"([^\s\"={}|<>]{1,255}) ")
# Without a header of syslog, Snare writes the host and a tab.
_SNARE_HOST: Final = re.compile(r"([^\s\"={}|<>#]{1,255})(?:\t|#011)(?=MSWinEventLog(?:\t|#011))")


class SyslogHeader(msgspec.Struct, gc=False):
    """The parts of a header as text, None where it lacks them. `text` is the message after it."""

    text: str
    pri: int | None = None
    time: str | None = None
    host: str | None = None
    app: str | None = None
    pid: str | None = None
    msgid: str | None = None
    data: dict[str, dict[str, str]] | None = None


def header_of(
    text: str, received: datetime, zone: tzinfo = UTC, *, tag_without_colon: bool = False
) -> SyslogHeader:
    """The header of one message.

    `received` (with a zone) gives the year that RFC 3164 lacks; in `zone` are times without one.
    `tag_without_colon`: the word after time and host is the tag, whatever follows it.
    """
    pri, at = None, 0
    match = _PRI.match(text)
    if match is not None and int(match[1]) <= _MOST_PRI:
        pri, at = int(match[1]), match.end()
    version = _RFC5424.match(text, at)
    # Without a PRI (in a file) there must be a time at least.
    if version is not None and (pri is not None or version[1] != "-"):
        return _rfc5424(text, pri, version)
    header = SyslogHeader(text, pri)
    rest = text[at:].lstrip(" ") if pri is not None else text.lstrip(" ")
    snare = _SNARE_HOST.match(rest)
    if snare is not None:
        header.host, header.text = snare[1], rest[snare.end() :]
        return header
    after = _stamped(header, rest, received, zone)
    if after is None and pri is None and _CISCO_TAG.match(rest) is None:
        return header  # no header at all
    rest = rest if after is None else after.lstrip(" ").removeprefix(": ")
    named = (
        after is None or _tag(rest) is not None
        or header.host is not None or header.msgid is not None
    )  # fmt: skip
    if not named and not _begins_message(rest):
        host = _SNARE_HOST.match(rest) or _HOST.match(rest)
        if host is not None:
            header.host, rest = host[1], rest[host.end() :]
            if rest.startswith(": "):  # Cisco puts a colon of its own after the host
                rest = rest[2:]
    again = _stamped(header, rest, received, zone) if header.host is not None else None
    rest = rest if again is None else again  # a relay's header before the device's own
    if header.msgid is not None:  # all of Cisco's header is read
        header.text = rest
        return header
    structured = _begins_message(rest)
    tag = None if structured else _tag(rest)
    if not (tag or structured or header.time is None or header.host is None):
        tag = _GLUED_TAG.match(rest)
        bare = _BARE_TAG.match(rest) if tag is None else None
        if bare is not None and (tag_without_colon or bare[2] is not None):
            tag = bare
    if tag is not None:
        header.app, header.pid, rest = tag[1], tag[2], rest[tag.end() :]
    header.text = rest
    return header


def _tag(rest: str) -> re.Match[str] | None:
    """The tag at the beginning. A number alone counts messages; it is no program's name."""
    tag = _CISCO_TAG.match(rest) or _TAG.match(rest)
    return None if tag is None or tag[1].isdecimal() else tag


class Hostless(NamedTuple):
    """Where a message without a host would have it: in place of what is between the two.

    `kind` says why: there is the `nil` of RFC 5424, only a `time`, or no `header` but a PRI.
    """

    kind: Literal["nil", "time", "header"]
    start: int
    end: int


def hostless(text: str, received: datetime) -> Hostless | None:
    """None for a message that names a host; see `header_of`."""
    header = header_of(text, received)
    if header.host is not None:
        return None
    match = _PRI.match(text) if header.pri is not None else None
    at = match.end() if match is not None else 0
    version = _RFC5424.match(text, at) if match is not None else None
    if version is not None:
        return Hostless("nil", *version.span(2))
    stamp = _ISO.match(text, at) or _BSD.match(text, at)
    if stamp is not None and header.time is not None and text[stamp.end() - 1] == " ":
        return Hostless("time", stamp.end(), stamp.end())
    return Hostless("header", at, at)


def _begins_message(rest: str) -> bool:
    return rest.startswith(("CEF:", "LEEF:", "{", "@cee:", "1,20", "0,20", *SNARE_BEGINNINGS))


def _stamped(header: SyslogHeader, rest: str, received: datetime, zone: tzinfo) -> str | None:
    """The text behind the time that `rest` begins with, which is noted; None if there is none."""
    device = _CISCO.match(rest)
    if device is None:
        return _of_origin(header, rest, received, zone) or _clocked(header, rest, received, zone)
    rest = rest[device.end() :]
    after = _clocked(header, rest, received, zone)
    if after is None:
        uptime = _UPTIME.match(rest)
        after = rest if uptime is None else rest[uptime.end() :]
        if _CISCO_TAG.match(after) is None:
            return None
    if device["host"] is not None and not device["host"].isdecimal():
        header.host = device["host"]
    # IOS-XR names the process before the tag, and writes `: ` for a zone that it does not name.
    # What follows a tag is text, and never a tag.
    after = after.removeprefix(": ")
    process = _TAG.match(after)
    tag = _CISCO_TAG.match(after, process.end()) if process is not None else None
    if process is not None and process[2] is not None and tag is not None:
        header.app, header.pid, header.msgid = process[1], process[2], tag[1]
        after = after[tag.end() :]
    return after


def _of_origin(header: SyslogHeader, rest: str, received: datetime, zone: tzinfo) -> str | None:
    """The tag and text of a message with the host in front of Cisco's time or tag; else None."""
    origin = _ORIGIN.match(rest) if header.pri is not None and header.time is None else None
    if origin is None:
        return None
    clocked = SyslogHeader("")
    tail = rest[origin.end() :]
    after = _clocked(clocked, tail, received, zone)
    after = tail if after is None else after
    if _CISCO_TAG.match(after) is None:
        return None
    header.host, header.time = origin["host"], clocked.time
    return after


def _clocked(header: SyslogHeader, rest: str, received: datetime, zone: tzinfo) -> str | None:
    """As `_stamped`, with nothing before the time."""
    match = _ISO.match(rest)
    if match is not None:
        header.time = match[1].replace(",", ".")
        if match["zone"] is None and zone is not UTC:
            header.time = placed(header.time, zone)
        return rest[match.end() :]
    match = _BSD.match(rest)
    if match is None:
        match = _EPOCH.match(rest) if header.pri is not None else None
        if match is None:
            return None
        header.time = match[1]
        return rest[match.end() :]
    year = match["before"] or match["after"] or match["last"]
    header.time = written_time(
        (match["month"], match["day"], match["clock"]), received, zone,
        year=year, fraction=(match["fraction"] or "")[1:7], named=match["zone"],
    ) or match[0].strip(" :")  # fmt: skip
    odd_zone = _NAMED_ZONE.match(rest, match.end())
    return rest[(odd_zone or match).end() :]


def rfc5424_sender(pri: str, sender: str) -> SyslogHeader | None:
    """The header with this PRI and `HOSTNAME APP-NAME PROCID MSGID`; None if it has no such part.

    Of a header that `header_of` reads, it has what is the same for all messages of a sender.
    """
    match = _RFC5424_SENDER.fullmatch(sender)
    if match is None or int(pri) > _MOST_PRI:
        return None
    host, app, pid, msgid = map(_unless_nil, match.groups())
    return SyslogHeader("", int(pri), None, host, app, pid, msgid)


def _unless_nil(part: str) -> str | None:
    return None if part == "-" else part


def _rfc5424(text: str, pri: int | None, match: re.Match[str]) -> SyslogHeader:
    time, host, app, pid, msgid = map(_unless_nil, match.groups())
    header = SyslogHeader("", pri, time, host, app, pid, msgid)
    at = match.end()
    if text.startswith("-", at) and text[at + 1 : at + 2] in ("", " "):
        at += 1
    else:
        data: dict[str, dict[str, str]] = {}
        while (element := _ELEMENT.match(text, at)) is not None:
            params = data.setdefault(element[1], {})
            for name, value in _PARAM.findall(element[2]):
                params.setdefault(name, _ESCAPED.sub(r"\1", value) if "\\" in value else value)
            at = element.end()
        unquoted = _UNQUOTED.match(text, at) if not data else None
        if unquoted is not None:
            pairs = [pair.partition("=") for pair in unquoted[2].split()]
            data[unquoted[1]] = first_of_each([p[0] for p in pairs], [p[2] for p in pairs])
            at = unquoted.end()
        header.data = data or None
    header.text = text[at + 1 :] if text.startswith(" ", at) else text[at:]
    return header
