"""Which files are generations of one log, and which of two is the older: told by their names.

Pure. Rotation leaves `audit.log.1`, `audit.log-20240131`, `audit-2024-01-31.log.gz` beside
`audit.log`; these are one family, whose members are read one after the other, oldest first.
"""

# ruff: noqa: PTH118, PTH119, PTH120
# Paths are text here: each look at the disk handles them by the thousand, and Path costs tenfold.
from __future__ import annotations

import os.path
import re
from typing import Final

# A date that stands between separators or at an end, with an optional time of day and the
# counter that some loggers add for the second file of a day. A bare number in the middle of a
# name is no rotation (`host-1.log` and `host-2.log` must not wait for each other).
_DATE: Final = re.compile(
    r"(?:^|[._-])(?P<date>(?:19|20)\d\d[._-]?[01]\d[._-]?[0-3]\d(?:[T._-]?\d\d[:._-]?\d\d(?:[:._-]?\d\d)?Z?)?)"
    r"(?:[._-]\d{1,3})?(?=$|[._-])"
)
# Ten digits are logrotate's `dateformat -%s`.
_NUMBER: Final = re.compile(r"[._-](?P<number>\d{1,10})$")

COMPRESSED: Final = ".gz"


def is_compressed(path: str) -> bool:
    """Whether the file is read through gunzip, by its name."""
    return path.endswith(COMPRESSED)


def base_name(path: str) -> str:
    """The name of the log that this file is a generation of, without its directory."""
    name = os.path.basename(path).removesuffix(COMPRESSED)
    return _NUMBER.sub("", _DATE.sub("", name, count=1)) or name


def family(path: str) -> str:
    """What all generations of one log in one directory have in common."""
    return os.path.join(os.path.dirname(path), base_name(path))


def is_rotated_name(path: str) -> bool:
    """Whether the name is that of an older generation."""
    return os.path.basename(path) != base_name(path)


def age(path: str) -> tuple[int, int, str]:
    """Sorts the generations of a family oldest first, where their times are the same.

    `log.2` is older than `log.1`, the first of January older than the second, and all of them
    older than the log without a suffix.
    """
    name = os.path.basename(path).removesuffix(COMPRESSED)
    dated, numbered = _DATE.search(name), _NUMBER.search(name)
    if dated is not None:
        return 1, 0, dated["date"]
    if numbered is not None:
        return 0, -int(numbered["number"]), ""
    return 2, 0, name
