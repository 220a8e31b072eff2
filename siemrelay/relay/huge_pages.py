"""Moves the interpreter's heap to huge pages: a lone event touches a thousand pages of it.

At ordinary load the relay sleeps between events, and the processor forgets where its pages are.
Looking that up again takes, on a virtual machine twice, as long as using them.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Final

import trio

# <asm-generic/mman-common.h>; Linux 6.1. Older kernels refuse it, which changes nothing.
_MADV_COLLAPSE: Final = 25

# On machines whose huge pages have another size the kernel refuses, too.
_PAGE_BYTES: Final = 2 << 20

_SETTING: Final = Path("/sys/kernel/mm/transparent_hugepage/enabled")

# A relay often starts with a backlog. Huge pages help it at rest, and moving to them takes from a
# start and from the memory that it is asking for.
_STARTED_S: Final = 10.0


async def move_heap() -> None:
    """Use huge pages once the start is over."""
    await trio.sleep(_STARTED_S)
    await trio.to_thread.run_sync(use_huge_pages)


def use_huge_pages() -> int:
    """Move what is allocated now, as far as it fills huge pages; returns the bytes moved.

    Takes some milliseconds. Nothing is moved where the machine's administrator has turned
    transparent huge pages off, or the kernel knows no such request.
    """
    try:
        if "[never]" in _SETTING.read_text():
            return 0
        maps = Path("/proc/self/maps").read_text()
        madvise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return 0
    madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    moved = 0
    for line in maps.splitlines():
        addresses, access, _, _, inode, *name = line.split()
        if access != "rw-p" or inode != "0" or name not in ([], ["[heap]"]):
            continue
        start, end = (int(address, 16) for address in addresses.split("-"))
        first = -(-start // _PAGE_BYTES) * _PAGE_BYTES
        for page in range(first, end - _PAGE_BYTES + 1, _PAGE_BYTES):
            if not madvise(page, _PAGE_BYTES, _MADV_COLLAPSE):
                moved += _PAGE_BYTES
    return moved
