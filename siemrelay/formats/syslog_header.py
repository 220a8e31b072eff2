"""Syslog headers, RFC 5424 and RFC 3164: for messages of their own, or in front of CEF and JSON."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field

from siemrelay.event import AuditEvent
from siemrelay.formats.text import syslog_severity
from siemrelay.options import Options

FACILITIES: Final = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
)  # fmt: skip
"""RFC 5424, table 1, by number."""

Facility = Literal[
    "audit", "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron",
    "authpriv", "ftp", "ntp", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
]  # fmt: skip

_MONTHS: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip
_NOT_PRINTABLE_ASCII: Final = re.compile(r"[^!-~]")

# Lengths of RFC 5424, section 6, and of RFC 3164's TAG.
_HOSTNAME_CHARACTERS: Final = 255
_APP_NAME_CHARACTERS: Final = 48
_MSGID_CHARACTERS: Final = 32
_TAG_CHARACTERS: Final = 32

# Type names and times come from outside; so many of them, so long, are remembered at a time.
_IDS_KEPT: Final = 4096
_KEPT_CHARACTERS: Final = 256


def _zone(value: str) -> str:
    try:
        zone_of(value)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError("write `local`, `UTC` or a name like Europe/Berlin") from error
    return value


def zone_of(name: str) -> ZoneInfo | None:
    """The zone of that name; None stands for this machine's own."""
    return None if name == "local" else ZoneInfo(name)


class HeaderOptions(Options):
    """What a sink with a syslog header may set."""

    facility: Facility = Field("audit", description="the syslog facility")
    hostname: str | None = Field(
        None, description="HOSTNAME of the header; this machine's name by default"
    )
    app_name: str = Field("siemrelay", min_length=1, description="APP-NAME, or RFC 3164's TAG")
    timezone: Annotated[str, AfterValidator(_zone)] = Field(
        "local",
        description="of RFC 3164's times, which carry none: `local`, `UTC` or a zone's name",
    )


def ascii_token(text: str, characters: int) -> str:
    """`text` as a header field: printable ASCII without spaces, bounded; `-` if nothing is left."""
    return _NOT_PRINTABLE_ASCII.sub("", text)[:characters] or "-"


Header = Callable[[AuditEvent], str]
"""Gives the header in front of one event's message, ending where the message begins."""


def rfc5424_header(options: HeaderOptions, host: str) -> Header:
    """`<PRI>1 TIME HOST APP - MSGID ` (RFC 5424, 6.2); structured data and message follow.

    MSGID is the event type without its spaces.
    """
    facility = FACILITIES.index(options.facility) * 8
    starts = [f"<{facility + syslog_severity(level)}>1 " for level in range(11)]
    middle = (
        f" {ascii_token(options.hostname or host, _HOSTNAME_CHARACTERS)} "
        f"{ascii_token(options.app_name, _APP_NAME_CHARACTERS)} - "
    )
    ends: dict[str, str] = {}

    def header(event: AuditEvent) -> str:
        kind = event.type
        end = ends.get(kind)
        if end is None:
            end = f"{middle}{ascii_token(kind, _MSGID_CHARACTERS)} "
            if len(kind) <= _KEPT_CHARACTERS:
                if len(ends) >= _IDS_KEPT:
                    ends.clear()
                ends[kind] = end
        return f"{starts[event.severity or 0]}{event.time}{end}"

    return header


def rfc3164_header(options: HeaderOptions, host: str, *, tag: bool = True) -> Header:
    """`<PRI>Mmm dd hh:mm:ss HOST TAG: ` (RFC 3164, 4.1); without `tag` the message follows HOST."""
    facility, zone = FACILITIES.index(options.facility) * 8, zone_of(options.timezone)
    starts = [f"<{facility + syslog_severity(level)}>" for level in range(11)]
    name = re.sub(r"[^A-Za-z0-9_.-]", "", options.app_name)[:_TAG_CHARACTERS] or "siemrelay"
    before = f"{name}: " if tag else ""
    end = f" {ascii_token(options.hostname or host, _HOSTNAME_CHARACTERS)} {before}"
    stamps: dict[str, str] = {}

    def header(event: AuditEvent) -> str:
        time = event.time or ""
        # Everything but the fraction decides; a second's events share the work.
        second = time[:19] + (time[-6:] if time[-1:] != "Z" else "Z")
        stamp = stamps.get(second)
        if stamp is None:
            if len(stamps) >= _IDS_KEPT:
                stamps.clear()
            stamp = stamps[second] = _stamp(second, zone)
        return f"{starts[event.severity or 0]}{stamp}{end}"

    return header


def _stamp(time: str, zone: ZoneInfo | None) -> str:
    moment = datetime.fromisoformat(time)
    # The years 1 and 9999, of which a zone may know nothing, stay as they were written.
    with suppress(OverflowError, ValueError, OSError):
        moment = moment.astimezone(zone)
    return f"{_MONTHS[moment.month - 1]} {moment.day:2d} {moment:%H:%M:%S}"
