"""How many cores this process may use: its CPU set, and the quota of its control groups.

A container with one CPU on a machine of 64 sees all of them; if it used them, the kernel would stop
the relay for most of each period (cgroups(7); the kernel's cgroup-v2.rst, `cpu.max`, and
sched-bwc.rst, `cpu.cfs_quota_us`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final, Literal

_CGROUPS: Final = "/proc/self/cgroup"
_VERSION_1: Final = "/sys/fs/cgroup/cpu"
_QUOTA_AND_PERIOD: Final = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
_VERSION_2: Final = "/sys/fs/cgroup"


# More than these only wait for the process that owns buffer and connections; measured with one sink
# and with ten formats.
_MOST_BY_DEFAULT: Final = 4


def most_workers(workers: Literal["auto"] | int) -> int:
    """How many workers there may be at a time. One core is for the relay itself."""
    return min(usable_cores() - 1, _MOST_BY_DEFAULT) if workers == "auto" else workers


def usable_cores() -> int:
    """The cores that this process may use, at least one."""
    return cores(len(os.sched_getaffinity(0)), _text)


def cores(allowed: int, text: Callable[[str], str]) -> int:
    """`allowed` cores, or fewer whole ones by the smallest quota of the groups, at least one.

    `text` returns what a file has, nothing for one that is not there.
    """
    found = (quota for group in text(_CGROUPS).splitlines() for quota in _quotas(group, text))
    return max(1, int(min((allowed, *found))))


def _quotas(group: str, text: Callable[[str], str]) -> Iterator[float]:
    """The cores that a line of /proc/self/cgroup and the groups around that one leave."""
    _, controllers, path = group.split(":", 2)
    for folder in (PurePosixPath(path), *PurePosixPath(path).parents):
        # A container without a namespace for its groups has its own one at the top.
        if not controllers:
            limit = text(str(PurePosixPath(f"{_VERSION_2}{folder}", "cpu.max"))).split()
        elif "cpu" in controllers.split(","):
            root = PurePosixPath(f"{_VERSION_1}{folder}")
            limit = [text(str(root / name)).strip() for name in _QUOTA_AND_PERIOD]
        else:
            return
        # `max` and -1 stand for no quota.
        if len(limit) == 2 and all(map(str.isdecimal, limit)):
            quota_us, period_us = map(int, limit)
            yield quota_us / period_us


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
