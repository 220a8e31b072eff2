"""How libc's allocator serves a process that handles batches: pieces of 100 KiB come and go."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Final

# malloc.h: M_ARENA_MAX. By default glibc gives each thread a heap of its own, which keeps what was
# freed in it: threads that read for ten sinks behind cost 40 MiB. Python's lock lets one thread at
# a time allocate anyway; checked by test_threads_allocate_from_one_heap.
_ONE_HEAP: Final = {-8: 1}

# M_TRIM_THRESHOLD: so much freed memory stays at the heap's end. M_TOP_PAD: the heap grows by so
# much more than is asked for. M_MMAP_THRESHOLD: only larger pieces go back to the kernel as soon as
# they are freed. By default the memory of every batch goes back, and the kernel clears it for the
# next one: a tenth of the time of a rush; checked by
# test_the_memory_of_a_batch_is_used_for_the_next_one.
_KEEPS_BATCHES: Final = {-1: 32 << 20, -2: 1 << 20, -3: 8 << 20}


def prepare_heap() -> None:
    """Keep the memory of batches for the next ones, and let all threads share one heap.

    Threads that run already keep their own. Changes nothing where libc is not glibc.
    """
    with suppress(AttributeError):  # musl has one heap and nothing to set
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in (_ONE_HEAP | _KEEPS_BATCHES).items():
            mallopt(parameter, value)
