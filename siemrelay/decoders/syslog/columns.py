"""The syslog headers of a whole batch, column by column.

One expression per form cuts the usual headers off their messages. Their parts beside the time are
the same for every message of a sender: they are parsed once, and a memo keeps them. `header_of`
parses any other header, message by message. Invariant: the columns hold exactly what it finds in
each message (test_headers_of_a_batch_are_those_of_each_message).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from itertools import compress
from typing import Any, Final, NamedTuple

from siemrelay.core.memo import BoundedMemo
from siemrelay.decoders.syslog.header import SyslogHeader, header_of, rfc5424_sender
from siemrelay.decoders.times import MONTHS, written_time

# RFC 5424, table 2: emergency, alert, critical, error, warning, notice, informational, debug.
_SEVERITIES: Final = (10, 9, 8, 7, 5, 3, 2, 0)

# PRI and version, time, from HOSTNAME to MSGID; then no structured data, what looks like one
# element of it, or something else.
_RFC5424: Final = re.compile(
    r"<(\d{1,3}>\d{1,2}) (-|\d{4}-\d\d-\d\d[Tt]\S{8,32}) ([^ ]+ [^ ]+ [^ ]+ [^ ]+) "
    r"(?:-(?: |\Z)|\[([^\]]+)\](?: |\Z)|(\[))"
)
# PRI, time, host and tag, or one of these two; a host alone only before what begins a message. A
# tag of digits might be Cisco's count before another time, which depends on what follows.
_BODY: Final = r"CEF:|LEEF:|@cee:|\{|[01],20|MSWinEventLog\t"
_RFC3164: Final = re.compile(
    r"<(\d{1,3})>(?:([A-Z][a-z][a-z] [ \d]\d \d\d:\d\d):([0-5][0-9])"
    r"|(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d))) "
    rf"((?:[^ ]*[^ :] )?(?:(?!\d|{_BODY})[^ :]+: |(?={_BODY})))"
)

# RFC 5424, 6.3: up to the first value of an element, and from one value to the next.
_SD_NAME: Final = r'([^ =\]"]{1,255})'
_OPENING: Final = re.compile(rf"{_SD_NAME} +{_SD_NAME}=")
_NEXT_NAME: Final = re.compile(rf" +{_SD_NAME}=")

# No header takes a part of this message, whatever stands before it.
_PROBE: Final = "{"

_SECOND: Final = len("2026-01-01T00:00:")
_DAY: Final = timedelta(days=1)
_SOME_TIME: Final = datetime(2026, 1, 1, tzinfo=UTC)
_STAMP: Final = "Jan  1 00:00:00"
_MEANT: Final = (
    ("2026-01-01T00:00:00Z", _SOME_TIME, UTC),
    ("2027-01-01T00:00:00+01:00", datetime(2027, 1, 1, tzinfo=UTC), timezone(timedelta(hours=1))),
)


class Sender(NamedTuple):
    """The part of a header that is the same for many messages: all but time and structured data.

    `severity` and `type` are for an event whose body has none; `about` becomes an attribute. Events
    share it, so it must not be changed.
    """

    severity: int | None
    type: str
    about: dict[str, Any]


Data = dict[str, dict[str, str]]
"""Structured data: the parameters of each element by its name."""


class Headers(NamedTuple):
    """The headers of messages, column by column, in the order of the messages."""

    senders: Sequence[Sender]
    times: Sequence[str | None]
    data: Sequence[Data | None]
    texts: Sequence[str]
    """The messages without their headers."""


_Row = Sequence[Any]
"""One of each column of `Headers`."""

_Columns = tuple[
    Sequence[Sender | None], Sequence[str | None], Sequence[Data | None], Sequence[str]
]
"""As in `Headers`; where there is no sender, the header is not a usual one."""

_groups: Final = re.Match.groups


def _after(match: re.Match[str]) -> str:
    return match.string[match.end() :]


class HeaderReader:
    """Reads the headers of one source; keeps its senders in bounded memory."""

    def __init__(
        self, zone: tzinfo = UTC, *, tag_without_colon: bool = False,
        data_of: Callable[[str], bool] = lambda element: True,
    ) -> None:  # fmt: skip
        """As in `header_of`. Structured data of other elements than `data_of` may be left out."""
        self._zone, self._tag_without_colon, self._data_of = zone, tag_without_colon, data_of
        self._rfc5424 = BoundedMemo(_rfc5424_sender)
        self._rfc3164 = BoundedMemo(_rfc3164_sender)
        self._minutes = BoundedMemo(self._minute)
        self._layouts = BoundedMemo(self._layout)

    def headers(self, messages: Sequence[str], received: datetime) -> Headers:
        """The header of each message as `header_of` finds it; `received` in UTC."""
        rows: dict[int, _Row] = {}
        left: Sequence[int] = range(len(messages))
        for form, cut in ((_RFC5424, self._cut_rfc5424), (_RFC3164, self._cut_rfc3164)):
            matches = list(map(form.match, [messages[i] for i in left] if rows else messages))
            found = [match for match in matches if match is not None]
            if not found:
                continue
            columns = cut(found, received)
            if len(found) == len(messages) and None not in columns[0]:
                return Headers(*columns)  # type: ignore[arg-type]  # no sender is lacking
            places = compress(left, matches)
            rows |= {i: row for i, *row in zip(places, *columns, strict=True) if row[0] is not None}
            left = [i for i in left if i not in rows]
        rows |= {i: self._parsed_alone(messages[i], received) for i in left}
        return Headers(*zip(*map(rows.__getitem__, range(len(messages))), strict=True))

    def _parsed_alone(self, message: str, received: datetime) -> _Row:
        header = header_of(message, received, self._zone, tag_without_colon=self._tag_without_colon)
        return _sender(header), header.time, header.data, header.text

    def _cut_rfc5424(self, matches: Sequence[re.Match[str]], received: datetime) -> _Columns:
        pris, times, named, elements, others = zip(*map(_groups, matches), strict=True)
        senders = list(map(self._rfc5424.__getitem__, zip(pris, named, strict=True)))
        if "-" in times:
            times = tuple([None if time == "-" else time for time in times])
        data: list[Data | None] = [None] * len(times)
        if any(elements) or any(others):
            data = list(map(self._data, elements))
            senders = [
                sender if found is not None or element is other is None else None
                for sender, found, element, other in zip(
                    senders, data, elements, others, strict=True
                )
            ]
        return senders, times, data, list(map(_after, matches))

    def _data(self, element: str | None) -> Data | None:
        """The text between the brackets of an element; None if it is none, or escaped."""
        if element is None or "\\" in element:
            return None
        pieces = element.split('"')
        layout = self._layouts['"'.join(pieces[::2])]
        if layout is None or len(pieces) % 2 == 0:
            return None
        name, names = layout
        if not names:
            return {}
        return {name: dict(zip(names, pieces[1::2]))}  # noqa: B905  # as many, by their layout

    def _layout(self, around: str) -> tuple[str, list[str]] | None:
        """The names in an element from what stands around its values; none if it is left out."""
        first, *others = around.split('"')
        opening = _OPENING.fullmatch(first)
        if opening is None or not others or others.pop():
            return None
        element, name = opening.groups()
        names = [name, *(found[1] for text in others if (found := _NEXT_NAME.fullmatch(text)))]
        # A name twice, or text that is no name: `header_of` decides what that is.
        if len(set(names)) <= len(others):
            return None
        return element, names if self._data_of(element) else []

    def _cut_rfc3164(self, matches: Sequence[re.Match[str]], received: datetime) -> _Columns:
        pris, minutes, seconds, times, named = zip(*map(_groups, matches), strict=True)
        senders = list(map(self._rfc3164.__getitem__, zip(pris, named, strict=True)))
        if None in times:
            day = received.date().isoformat()
            known = {minute: minute and self._minutes[minute, day] for minute in set(minutes)}
            times = tuple([
                time or (around and f"{around[0]}{second}{around[1]}")
                for time, second, around in zip(
                    times, seconds, map(known.__getitem__, minutes), strict=True
                )
            ])  # fmt: skip
            if None in times:
                senders = [
                    None if time is None else sender
                    for sender, time in zip(senders, times, strict=True)
                ]
        return senders, times, [None] * len(times), list(map(_after, matches))

    def _minute(self, key: tuple[str, str]) -> tuple[str, str] | None:
        """The texts around the second in the times of this minute, received that day.

        None if the minute is none, or if the year or the offset depends on the second.
        """
        minute, day = key
        month, of_month, clock = minute.split()
        if month not in MONTHS:
            return None
        morning = datetime.fromisoformat(day).replace(tzinfo=UTC)
        found = set()
        for received in (morning, morning + _DAY):
            for second in ("00", "59"):
                stamp = (month, of_month, f"{clock}:{second}")
                time = written_time(stamp, received, self._zone)
                if time is None:
                    return None
                found.add((time[:_SECOND], time[_SECOND + 2 :]))
        return found.pop() if len(found) == 1 else None


def _sender(header: SyslogHeader) -> Sender:
    severity, about = None, dict[str, Any]()
    if header.pri is not None:
        severity = _SEVERITIES[header.pri % 8]
        about["facility"], about["severity"] = divmod(header.pri, 8)
    for name in ("host", "app", "pid", "msgid"):
        value = getattr(header, name)
        if value is not None:
            about[name] = value
    return Sender(severity, header.msgid or header.app or "", about)


def _rfc5424_sender(key: tuple[str, str]) -> Sender | None:
    pri_and_version, sender = key
    header = rfc5424_sender(pri_and_version.partition(">")[0], sender)
    return None if header is None else _sender(header)


def _rfc3164_sender(key: tuple[str, str]) -> Sender | None:
    pri, sender = key
    for time, received, zone in _MEANT:
        header = header_of(f"<{pri}>{_STAMP} {sender}{_PROBE}", received, zone)
        # A host may look like the time's zone or year: then one of the two comes out wrong.
        if header.text != _PROBE or header.time != time:
            return None
        # What was no tag is a host, after which a second header may follow.
        if sender.endswith(": ") and header.app is None:
            return None
    return _sender(header)
