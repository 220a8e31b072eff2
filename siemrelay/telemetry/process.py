"""What the process uses, under the names that Prometheus' client libraries give it.

Their own collector needs /proc/stat, which the unit hides (ProcSubset=pid).
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def cpu_s() -> float:
    """Processor time of all threads so far, in the program and in the kernel."""
    return time.process_time()


def virtual_bytes() -> int | None:
    """The address space; None where /proc is not mounted."""
    return _pages(0)


def resident_bytes() -> int | None:
    """The memory in use; None where /proc is not mounted."""
    return _pages(1)


def _pages(field: int) -> int | None:
    try:
        return int(Path("/proc/self/statm").read_text().split()[field]) * _PAGE_BYTES
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
