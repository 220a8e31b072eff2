"""What `run` sets for its process."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

# Threads allocate at the same time, so that each would get a heap of its own.
_ALLOCATE = """
import ctypes, threading
from siemrelay.cli.run import share_heap

if {shared}:
    share_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
threads, together = [], threading.Barrier(5)

def allocate():
    libc.malloc(5000)
    together.wait()

for _ in range(4):
    threads.append(threading.Thread(target=allocate))
    threads[-1].start()
together.wait()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="needs glibc's heaps")
@pytest.mark.parametrize(("shared", "heaps"), [(True, 1), (False, 5)], ids=["as-run", "without"])
def test_threads_allocate_from_one_heap(shared: bool, heaps: int) -> None:
    environment = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    program = _ALLOCATE.format(shared=shared)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.count("<heap nr=") == heaps
