"""In which time zone a device means the times that it writes without one."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field

from siemrelay.decoders.contract import TimeBoundOptions
from siemrelay.decoders.syslog.bodies import Body

_OFFSET: Final = re.compile(r"([+-])([01]\d|2[0-3]):([0-5]\d)", re.ASCII)


def zone_of(name: str) -> tzinfo:
    """The zone of a name from the IANA database, or of an offset. Raises ValueError."""
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


def _known(name: str) -> str:
    zone_of(name)
    return name


class SyslogHeaderOptions(TimeBoundOptions):
    """Settings of the decoders that read syslog headers."""

    timezone: Annotated[str, AfterValidator(_known)] = Field(
        "UTC",
        description="where headers have times without a zone (RFC 3164), the devices' own: a name "
        "like Europe/Berlin, or an offset like +02:00",
    )


class SyslogDecoderOptions(SyslogHeaderOptions):
    """Settings of the decoder that also finds out what follows the header."""

    body: Body = Field(
        "auto",
        description="what follows the header. `auto`: a message is CEF or LEEF if it begins as "
        "one, JSON if it is one object, key=value if it is pairs from beginning to end, else text; "
        "pairs among its words become attributes (`attributes.text.NAME`) and nothing more. Any "
        "other choice declares the form: `key_value` takes pairs from among words, too",
    )
