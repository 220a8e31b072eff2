"""Times as records write them → RFC 3339.

Reads RFC 3339, looser ISO 8601 (also without separators, as LDAP's generalized time, RFC 4517,
3.3.13, and MariaDB's audit log write it), the time since the epoch, the forms of syslog (RFC 3164),
CEF (ArcSight's implementation standard, revision 26, `rt`) and LEEF (IBM's guide, `devTime`), which
name the month and may lack the year, and what the pattern of LEEF's `devTimeFormat` describes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo

from siemrelay.core.times import rfc3339

MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
    )
}
ZONES: Final = {
    "UTC": 0, "GMT": 0, "Z": 0, "EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6,
    "PST": -8, "PDT": -7, "CET": 1, "CEST": 2, "EET": 2, "EEST": 3, "BST": 1, "JST": 9,
}  # fmt: skip
"""Zones that devices write by name, in hours from UTC."""

MONTH: Final = "(?i:" + "|".join(MONTHS) + ")"
ZONE: Final = "(?i:" + "|".join(ZONES) + r")|[+-]\d\d:?\d\d"

# A clock may be ahead by this much, the largest difference of zones; what lies further ahead was
# written in an earlier year.
_AHEAD: Final = timedelta(days=1)

_RFC3339: Final = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII
)
_CLOCK: Final = r"(?P<clock>\d\d:\d\d:\d\d)(?:[.,](?P<fraction>\d+))?"
_ZONED: Final = rf"(?:\s*(?:GMT)?(?P<zone>{ZONE}))?"
_ISO_LOOSE: Final = re.compile(rf"(?P<day>\d{{4}}([-/])\d\d\2\d\d)[Tt ]{_CLOCK}{_ZONED}", re.ASCII)
# `20261120T080000Z`, `20261120 08:00:00`, `20261120080000Z`: fourteen digits alone are a number.
_ISO_BASIC: Final = re.compile(
    r"(?P<year>\d{4})(?P<month>\d\d)(?P<of_month>\d\d)"
    rf"(?:[Tt ](?P<clock>\d\d:\d\d:\d\d|\d{{6}})|(?P<digits>\d{{6}})(?=[.,]?\d*(?:{ZONE})))"
    rf"(?:[.,](?P<fraction>\d+))?{_ZONED}",
    re.ASCII,
)
# `Nov 20 2026 08:00:00.123 UTC`, the year optional or at the end; a weekday before it.
_MONTH_FIRST: Final = re.compile(
    rf"(?:[A-Z][a-z]{{2}},? )?(?P<month>{MONTH}) +(?P<of_month>\d{{1,2}})(?:,? (?P<year>\d{{4}}))? "
    rf"{_CLOCK}{_ZONED}(?: (?P<last>\d{{4}}))?",
    re.ASCII,
)
# `Fri, 20 Nov 2026 08:00:00 +0100`, `20/Nov/2026:08:00:00 +0100` (RFC 5322, web servers' logs).
_DAY_FIRST: Final = re.compile(
    rf"(?:[A-Z][a-z]{{2}},? )?(?P<of_month>\d{{1,2}})[ /-](?P<month>{MONTH})[ /-](?P<year>\d{{4}})"
    rf"[ :]{_CLOCK}{_ZONED}(?P<last>(?!))?",
    re.ASCII,
)
_OFFSET: Final = re.compile(r"([+-])([01]\d|2[0-3]):([0-5]\d)", re.ASCII)
_EPOCH: Final = re.compile(r"\d{9,19}(?:\.\d{1,9})?", re.ASCII)

# Longer text is no time: no pattern has to look at it.
_LONGEST: Final = 64

# Epoch seconds reach this in the year 5138; what is larger is in milli-, micro- or nanoseconds.
_EPOCH_SECONDS_END: Final = 1e11


def time_of(value: Any, received: datetime | None = None, zone: tzinfo = UTC) -> str | None:
    """A time as RFC 3339 with an offset; None if the value is no time.

    A text without a zone is in `zone`; one without a year is none without `received` (with a zone),
    else of the year that `written_time` finds. More than six fractional digits are cut, since RFC
    5424 does not allow them.
    """
    if isinstance(value, str):
        if _RFC3339.fullmatch(value):
            return value if plain_times([value]) else None
        text = value.strip() if len(value) <= _LONGEST else ""
        if _EPOCH.fullmatch(text):
            return time_of(float(text))
        match = _ISO_LOOSE.fullmatch(text)
        if match is not None:
            day = match["day"].replace("/", "-")
            return _with_offset(f"{day}T{match['clock']}", match["fraction"], match["zone"], zone)
        match = _ISO_BASIC.fullmatch(text)
        if match is not None:
            clock = (match["clock"] or match["digits"]).replace(":", "")
            day = f"{match['year']}-{match['month']}-{match['of_month']}"
            moment = f"{day}T{clock[:2]}:{clock[2:4]}:{clock[4:]}"
            return _with_offset(moment, match["fraction"], match["zone"], zone)
        match = _MONTH_FIRST.fullmatch(text) or _DAY_FIRST.fullmatch(text)
        year = match and (match["year"] or match["last"])
        if match is None or (year is None and received is None):
            return None
        return written_time(
            (match["month"], match["of_month"], match["clock"]), received or datetime.now(UTC),
            zone, year=year, fraction=(match["fraction"] or "")[:6], named=match["zone"],
        )  # fmt: skip
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e20:
        moment_s = float(value)
        while moment_s >= _EPOCH_SECONDS_END:
            moment_s /= 1000
        return rfc3339(moment_s)
    return None


def _with_offset(iso: str, fraction: str | None, named: str | None, zone: tzinfo) -> str | None:
    """The ISO time to the second with its fraction and offset; None if there is no such moment."""
    if named is None and zone is not UTC:
        iso = placed(iso, zone)
    iso, offset = iso[:19], iso[19:] or ("Z" if named is None else _offset(named))
    text = f"{iso}{'.' + fraction[:6] if fraction else ''}{offset}"
    return text if plain_times([text]) else None


def _offset(named: str) -> str:
    """`Z` or `+HH:MM` of a zone that matched `ZONE`."""
    hours = ZONES.get(named.upper())
    offset = f"{named[:3]}:{named[-2:]}" if hours is None else f"{hours:+03d}:00"
    return "Z" if offset == "+00:00" and hours is not None else offset


def placed(iso: str, zone: tzinfo) -> str:
    """A time in ISO 8601 without an offset, with that of the zone; as it is if it is no moment."""
    try:
        moment = datetime.fromisoformat(iso[:19]).replace(tzinfo=zone)
    except ValueError:
        return iso
    return iso + moment.isoformat()[19:]


def written_time(
    stamp: tuple[str, str, str], received: datetime, zone: tzinfo, *,
    year: str | None = None, fraction: str = "", named: str | None = None,
) -> str | None:  # fmt: skip
    """A time of RFC 3164 (month, day, clock) as RFC 3339; None if there is no such moment.

    `named` is a zone that the record has. Without a year it is the last such moment that lies no
    more than a day after `received`: a record may be a year old, and a clock somewhat ahead.
    """
    month, day, clock = stamp
    years = (int(year),) if year else (received.year + 1, received.year, received.year - 1)
    for candidate in years:
        try:
            hour, minute, second = map(int, clock.split(":"))
            moment = datetime(
                candidate, MONTHS[month.capitalize()], int(day), hour, minute, second,
                tzinfo=timezone(timedelta(hours=ZONES.get(named.upper(), 0))) if named else zone,
            )  # fmt: skip
        except ValueError:  # the 30th of February; or the 29th in a year that has none
            continue
        if year or moment - received <= _AHEAD:
            offset = _offset(named) if named else moment.isoformat()[19:]
            text = f"{moment.isoformat()[:19]}{'.' + fraction if fraction else ''}{offset}"
            return text.replace("+00:00", "Z")
    return None


# The letters of Java's SimpleDateFormat that LEEF's `devTimeFormat` is written in.
_LETTERS: Final = {
    "y": r"(?P<year>\d{4})", "M": r"(?P<month_number>\d{1,2})", "d": r"(?P<of_month>\d{1,2})",
    "H": r"(?P<hour>\d{1,2})", "h": r"(?P<hour_of_half>\d{1,2})", "m": r"(?P<minute>\d{1,2})",
    "s": r"(?P<second>\d{1,2})", "S": r"(?P<fraction>\d{1,9})", "a": r"(?P<half>(?i:AM|PM))",
    "z": rf"(?P<zone>{ZONE})", "Z": rf"(?P<zone>{ZONE})", "X": rf"(?P<zone>{ZONE})",
    "E": r"[A-Za-z]{2,9}",
}  # fmt: skip
_PIECE: Final = re.compile(r"([A-Za-z])\1*|'([^']*)'|[^A-Za-z']", re.DOTALL)


def time_by_pattern(text: str, pattern: str) -> str | None:
    """The time that a pattern of Java's SimpleDateFormat describes, as `time_of` reads it.

    None if the text does not fit, or the pattern has a letter of which no time is made (the week
    of a year).
    """
    form = _compiled(pattern) if len(pattern) <= _LONGEST else None
    match = form.fullmatch(text.strip()) if form is not None and len(text) <= _LONGEST else None
    if match is None:
        return None
    part = {name: value for name, value in match.groupdict().items() if value}
    hour = int(part.get("hour", "0"))
    if "hour_of_half" in part:
        hour = int(part["hour_of_half"]) % 12 + 12 * (part.get("half", "").upper() == "PM")
    clock = f"{hour:02d}:{int(part.get('minute', '0')):02d}:{int(part.get('second', '0')):02d}"
    fraction = f".{part['fraction']}" if "fraction" in part else ""
    zone = f" {part['zone']}" if "zone" in part else ""
    number = int(part.get("month_number", "1"))
    if not 1 <= number <= len(MONTHS):
        return None
    month = part.get("month") or list(MONTHS)[number - 1]
    year = f" {part['year']}" if "year" in part else ""
    return f"{month[:3].capitalize()} {part.get('of_month', '1')}{year} {clock}{fraction}{zone}"


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> re.Pattern[str] | None:
    pieces = []
    for piece in _PIECE.finditer(pattern):
        letter, quoted = piece.groups()
        if letter == "M" and len(piece[0]) > 2:
            pieces.append(rf"(?P<month>{MONTH})[a-z]*\.?")
        elif letter is not None:
            if letter not in _LETTERS:
                return None
            pieces.append(_LETTERS[letter])
        else:
            literal = piece[0] if quoted is None else quoted or "'"
            pieces.append(r"\s+" if literal.isspace() else re.escape(literal))
    try:
        return re.compile("".join(pieces), re.ASCII)
    except re.error:  # a letter twice: Java lets the last one count; here it is no time
        return None


_DIGITS: Final = bytes(ord("0") if chr(b) in "123456789" else b for b in range(256))
_MILLISECONDS: Final = b"0000-00-00T00:00:00.000Z\n"


def plain_times(times: Sequence[str]) -> list[datetime] | None:
    """The moments of texts that are RFC 3339 already, at C speed; None if one of them is not."""
    try:
        moments = list(map(datetime.fromisoformat, times))
    except ValueError:
        return None
    # Some Pythons read ISO 8601's hour 24, which RFC 3339 does not have.
    joined = "\n".join([*times, ""]).encode("ascii", "replace")
    if b"T24" in joined:
        return None
    forms = joined.translate(_DIGITS)
    if forms == _MILLISECONDS * len(times):
        return moments
    plain = all(map(_RFC3339.fullmatch, set(forms.decode().split("\n")[:-1])))
    return moments if plain else None


def zone_of(name: str) -> tzinfo:
    """The zone of a name from the IANA database, or of an offset like `+02:00`. Raises ValueError.

    It is where a device's clock is, if the device writes times without a zone.
    """
    if name == "UTC":
        return UTC
    offset = _OFFSET.fullmatch(name)
    if offset is not None:
        size = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        return timezone(-size if offset[1] == "-" else size)
    try:
        zone = ZoneInfo(name)
        datetime(2000, 1, 1, tzinfo=zone).utcoffset()
    except (KeyError, ValueError, OSError):
        raise ValueError(
            "write a zone like Europe/Berlin (as in /usr/share/zoneinfo, Debian package tzdata) "
            "or an offset like +02:00"
        ) from None
    return zone
