"""How a process that handles batches gets its memory from libc."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_info"), reason="needs glibc's heaps"
)

# Threads allocate at the same time, so that each would get a heap of its own.
_ALLOCATE = """
import ctypes, threading
from siemrelay.pipeline.heap import prepare_heap

if {prepared}:
    prepare_heap()
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

# As batches do: several pieces of one are freed before those of the next one are asked for.
_COME_AND_GO = """
import resource
from siemrelay.pipeline.heap import prepare_heap

if {prepared}:
    prepare_heap()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def batch():
    pieces = [b"x" * (512 << 10) for _ in range(12)]

batch()
before = faults()
for _ in range(20):
    batch()
print((faults() - before) // 20)
"""


def output_of(program: str, *, prepared: bool) -> str:
    environment = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    command = [sys.executable, "-c", program.format(prepared=prepared)]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize(("prepared", "heaps"), [(True, 1), (False, 5)], ids=["as-run", "without"])
def test_threads_allocate_from_one_heap(prepared: bool, heaps: int) -> None:
    assert output_of(_ALLOCATE, prepared=prepared).count("<heap nr=") == heaps


def test_the_memory_of_a_batch_is_used_for_the_next_one() -> None:
    # 6 MiB a batch are 1,536 pages of 4 KiB.
    assert int(output_of(_COME_AND_GO, prepared=True)) < 50
    assert int(output_of(_COME_AND_GO, prepared=False)) > 1000
