"""Syslog headers, RFC 5424 and RFC 3164, and any format behind one (`header:` on a sink)."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime
from operator import add
from typing import Annotated, Final, Literal, Protocol, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field

from siemrelay.core.event import AuditEvent, Selection, syslog_severity
from siemrelay.core.memo import BoundedMemo
from siemrelay.core.options import Options
from siemrelay.formats.contract import Format
from siemrelay.formats.writing.columns import FEW_EVENTS, Lines
from siemrelay.formats.writing.epoch import second_of, with_milliseconds

Facility = Literal[
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
]  # fmt: skip
FACILITIES: Final = get_args(Facility)
"""RFC 5424, table 1, by number."""

_MONTHS: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip
_NOT_PRINTABLE_ASCII: Final = re.compile(r"[^!-~]")

# Lengths of RFC 5424, section 6, and of RFC 3164's TAG.
_HOSTNAME_CHARACTERS: Final = 255
_APP_NAME_CHARACTERS: Final = 48
_MSGID_CHARACTERS: Final = 32
_TAG_CHARACTERS: Final = 32


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
    """The options of a sink with a syslog header."""

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


class Header(Protocol):
    """The header in front of messages, ending where the message begins."""

    def begin(self, lines: Lines, selection: Selection) -> None:
        """Begins the lines of a selection with it."""

    def alone(self, event: AuditEvent) -> str:
        """The header of one event."""


class Rfc5424Header:
    """`<PRI>1 TIME HOST APP - MSGID ` (RFC 5424, 6.2); structured data and message follow.

    MSGID is the event type without its spaces.
    """

    def __init__(self, options: HeaderOptions, host: str) -> None:
        self._starts = _priorities(options, end=">1 ")
        middle = (
            f" {ascii_token(options.hostname or host, _HOSTNAME_CHARACTERS)} "
            f"{ascii_token(options.app_name, _APP_NAME_CHARACTERS)} - "
        )
        self._ends = BoundedMemo[str, str](
            lambda kind: f"{middle}{ascii_token(kind, _MSGID_CHARACTERS)} "
        )

    def begin(self, lines: Lines, selection: Selection) -> None:
        """See `Header`."""
        lines.each(map(self._starts.__getitem__, selection.column("severity")))
        lines.each(selection.column("time"))
        lines.each(map(self._ends.__getitem__, selection.column("type")))

    def alone(self, event: AuditEvent) -> str:
        """See `Header`."""
        return f"{self._starts[event.severity]}{event.time}{self._ends[event.type]}"


class Rfc3164Header:
    """`<PRI>Mmm dd hh:mm:ss HOST TAG: ` (RFC 3164, 4.1); without `tag` the message follows HOST."""

    def __init__(self, options: HeaderOptions, host: str, *, tag: bool = True) -> None:
        zone = zone_of(options.timezone)
        self._starts = _priorities(options, end=">")
        name = re.sub(r"[^A-Za-z0-9_.-]", "", options.app_name)[:_TAG_CHARACTERS] or "siemrelay"
        before = f"{name}: " if tag else ""
        self._end = f" {ascii_token(options.hostname or host, _HOSTNAME_CHARACTERS)} {before}"
        # A second's events share the work.
        self._stamps = BoundedMemo[str, str](lambda second: _stamp(second, zone))

    def _stamped(self, time: str) -> str:
        # Everything but the fraction decides.
        return self._stamps[time[:19] + ("." if time[-1:] == "Z" else time[-6:])]

    def begin(self, lines: Lines, selection: Selection) -> None:
        """See `Header`."""
        times = selection.column("time")
        lines.each(map(self._starts.__getitem__, selection.column("severity")))
        if with_milliseconds(times):
            lines.each(map(self._stamps.__getitem__, map(second_of, times)))
        else:
            lines.each([self._stamped(time or "") for time in times])
        lines.text(self._end)

    def alone(self, event: AuditEvent) -> str:
        """See `Header`."""
        return f"{self._starts[event.severity]}{self._stamped(event.time or '')}{self._end}"


def _priorities(options: HeaderOptions, end: str) -> dict[int | None, str]:
    facility = FACILITIES.index(options.facility) * 8
    levels = (None, *range(11))
    return {level: f"<{facility + syslog_severity(level or 0)}{end}" for level in levels}


def _stamp(second: str, zone: ZoneInfo | None) -> str:
    """RFC 3164's time for `2024-03-01T08:00:00.` (a dot: UTC) or for a time with an offset."""
    moment = datetime.fromisoformat(second.replace(".", "Z"))
    # The years 1 and 9999, of which a zone may know nothing, stay as they were written.
    with suppress(OverflowError, ValueError, OSError):
        moment = moment.astimezone(zone)
    return f"{_MONTHS[moment.month - 1]} {moment.day:2d} {moment:%H:%M:%S}"


class WithSyslogHeader:
    """`HEADER MESSAGE` for each message of the inner format.

    Behind RFC 3164 a CEF or LEEF line stands where the TAG would: receivers look for `CEF:` there.
    """

    members = None

    def __init__(
        self, inner: Format, kind: Literal["rfc3164", "rfc5424"], options: HeaderOptions, host: str,
        *, tag: bool,
    ) -> None:  # fmt: skip
        """`tag`: whether the message needs RFC 3164's TAG in front."""
        self._inner = inner
        if kind == "rfc3164":
            self._header: Header = Rfc3164Header(options, host, tag=tag)
            self._gap = ""
        else:
            self._header, self._gap = Rfc5424Header(options, host), "- "  # no structured data
        self.fields = inner.fields | {"time", "type", "severity"}

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        messages = self._inner.encode(selection)
        if len(selection) <= FEW_EVENTS:
            return [
                f"{self._header.alone(event)}{self._gap}".encode() + message
                for event, message in zip(selection.events, messages, strict=True)
            ]
        lines = Lines(len(selection))
        self._header.begin(lines, selection)
        lines.text(self._gap)
        return list(map(add, lines.encoded(), messages))
