"""Memory that the relay and a worker share: what they exchange is copied once on each side.

Through a pipe the kernel copies it twice more, into pages that it takes and gives back for that: of
records that are passed on as they came, this cost nearly as much as to format them.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Sequence
from typing import Final

SLOTS: Final = 6
"""How many jobs a worker has at most: one that it formats and those that wait for it. They last
while the relay's loop is busy with other things; with 3 a rush is up to a twentieth slower."""

# <linux/memfd.h>: MFD_NOEXEC_SEAL; Linux 6.3.
_NOEXEC_SEAL: Final = 8

# Four times a usual batch: some formats write twice what they read. Memory is taken as it is used.
_SLOT_BYTES: Final = 2 * 1024 * 1024
_SIDE_BYTES: Final = SLOTS * _SLOT_BYTES


def create() -> int:
    """A descriptor of such memory, for `SharedMemory`. Raises OSError."""
    descriptor = _file_in_memory()
    try:
        os.ftruncate(descriptor, 2 * _SIDE_BYTES)
        # If the file were cut, whoever reads it would be ended by a signal.
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _file_in_memory() -> int:
    name, flags = "siemrelay worker", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        # A machine may demand that nothing in it is ever run (sysctl vm.memfd_noexec).
        return os.memfd_create(name, flags | _NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create(name, flags)  # the kernel does not know it yet


class SharedMemory:
    """A slot for the data of each job that a worker has, and one for those of its answer.

    Invariant: nothing is put into a slot before the other side has taken what lies there, as the
    relay keeps a slot for a job until it has its answer; checked by
    test_every_answer_is_that_of_its_own_job.
    """

    def __init__(self, descriptor: int, *, of_worker: bool) -> None:
        """A worker puts answers and takes jobs. The descriptor may then be closed."""
        sides = [mmap.mmap(descriptor, _SIDE_BYTES, offset=side * _SIDE_BYTES) for side in range(2)]
        self._own, self._others = reversed(sides) if of_worker else sides

    def put(self, slot: int, data: Sequence[bytes]) -> bool:
        """Puts these, one behind the other, into this side's slot; False if they do not fit."""
        if sum(map(len, data)) > _SLOT_BYTES:
            return False
        at = slot * _SLOT_BYTES
        for part in data:
            self._own[at : at + len(part)] = part
            at += len(part)
        return True

    def take(self, slot: int, size: int) -> bytes:
        """Takes what the other side has put into its slot."""
        at = slot * _SLOT_BYTES
        return self._others[at : at + size]

    def close(self) -> None:
        """Gives this side's view back."""
        self._own.close()
        self._others.close()
