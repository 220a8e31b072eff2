"""Resources that the process uses, under the names that Prometheus' client libraries give it.

Their own collector needs /proc/stat, which the unit hides (ProcSubset=pid).
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Collection
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(workers: Collection[int]) -> float:
    """Processor time so far of this process and its workers, also of those that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime + sum(map(_cpu_s, workers))


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S  # utime, stime


def virtual_bytes() -> int | None:
    """The address space; None where /proc is not mounted."""
    return _pages("self", 0)


def resident_bytes(workers: Collection[int]) -> int | None:
    """The memory in use, with that of the workers; None where /proc is not mounted."""
    own = _pages("self", 1)
    return None if own is None else own + sum(_pages(pid, 1) or 0 for pid in workers)


def _pages(pid: int | str, field: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[field]) * _PAGE_BYTES
    except OSError:
        return None


def open_files() -> int | None:
    """Descriptors in use; None where /proc is not mounted."""
    try:
        return sum(1 for _ in os.scandir("/proc/self/fd")) - 1  # without that of the scan itself
    except OSError:
        return None


def most_open_files() -> int:
    """Descriptors that may be in use."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
