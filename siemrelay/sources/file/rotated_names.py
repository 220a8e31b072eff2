"""Which files are generations of one log, and which of two is the older: read from their names.

Pure. Rotation leaves `audit.log.1`, `audit.log-20240131`, `audit-2024-01-31.log.gz` beside
`audit.log`; these are one family, whose members are read one after the other, oldest first.
"""

# ruff: noqa: PTH118, PTH119, PTH120
# Paths are text here: a survey handles them by the thousand, and Path costs tenfold.
from __future__ import annotations

import os.path
import re
from typing import Final

from siemrelay.wire.compression import COMPRESSED_SUFFIX

# A date that stands between separators or at an end, with an optional time of day (or the hour that
# logrotate adds to it for `hourly`), and the counter that some loggers add for the second file of
# a day, loguru's microseconds, or logrotate's `%s`. A bare number in the middle of a name is no
# rotation (`host-1.log` and `host-2.log` must not wait for each other).
_DATE: Final = re.compile(
    r"(?:^|[._-])(?P<date>(?:19|20)\d\d[._-]?[01]\d[._-]?[0-3]\d"
    r"(?:(?:[T._-]?\d\d[:._-]?\d\d(?:[:._-]?\d\d)?Z?)|(?<=\d{8})[0-2]\d)?)"
    r"(?:[._-](?P<counter>\d{1,3}|\d{6}|\d{10}))?(?=$|[._-])"
)
# Ten digits are logrotate's `dateformat -%s`.
_NUMBER: Final = re.compile(r"[._-](?P<number>\d{1,10})$")
# logrotate's `extension .log` numbers before the extension: `audit.1.log`.
_NUMBER_INSIDE: Final = re.compile(r"\.(?P<number>\d{1,3})(?=\.[A-Za-z]+$)")

# What daemontools' multilog, s6-log and svlogd name a file that was `current`: TAI64N, the state.
_TAI64N: Final = re.compile(r"^@(?P<time>[0-9a-f]{24})(?:\.[a-z])?$")

_NANOSECONDS: Final = re.compile(r"(?<=[A-Za-z])\d{6,}$")


def _plain_name(path: str) -> str:
    name = COMPRESSED_SUFFIX.sub("", os.path.basename(path))
    # kubelet compresses by way of `0.log.20240131-101112.tmp`, logback by way of
    # `audit.2024-01-31.1.log1706659200123.tmp`.
    if not name.endswith(".tmp"):
        return name
    final = _NANOSECONDS.sub("", name.removesuffix(".tmp"))
    return final if _log_name(final) != final else name


def _log_name(name: str) -> str:
    if _TAI64N.search(name):
        return "current"
    return _NUMBER_INSIDE.sub("", _NUMBER.sub("", _DATE.sub("", name, count=1))) or name


def base_name(path: str) -> str:
    """The name of the log that this file is a generation of, without its directory."""
    return _log_name(_plain_name(path))


def family(path: str) -> str:
    """The path that all generations of one log in one directory share."""
    return os.path.join(os.path.dirname(path), base_name(path))


def is_rotated_name(path: str) -> bool:
    """Whether the name is that of an older generation."""
    return os.path.basename(path) != base_name(path)


def age(path: str) -> tuple[int, int, str]:
    """Sorts the generations of a family oldest first, where their times are the same.

    `log.2` is older than `log.1`, the first of January older than the second, and all of them
    older than the log without a suffix.
    """
    name = _plain_name(path)
    dated = _DATE.search(name)
    numbered = _NUMBER.search(name) or _NUMBER_INSIDE.search(name)
    if (tai := _TAI64N.search(name)) is not None:
        return 1, 0, tai["time"]
    if dated is not None:
        return 1, 0, f"{dated['date']}.{dated['counter'] or '':>10}"
    if numbered is not None:
        return 0, -int(numbered["number"]), ""
    return 2, 0, name
