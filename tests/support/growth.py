"""Measures whether twice the input costs about twice the time and memory."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable

KIB = 1024
# Twice the work gives 2, its square 4.
MOST_GROWTH = 3.2
ROUNDS = 4


def cpu_s(work: Callable[[], object]) -> float:
    # A collection looks at everything that this process of tests has, too.
    gc.disable()
    try:
        started = time.process_time()
        work()
        return time.process_time() - started
    finally:
        gc.enable()


def peak_bytes(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def grows_with_its_input(small: Callable[[], object], large: Callable[[], object]) -> None:
    # Taken in turn, so that another program disturbs both; the least disturbed of each counts, and
    # on a busy machine more rounds are needed until that is known.
    before = after = float("inf")
    for _ in range(5 * ROUNDS):
        before, after = min(before, cpu_s(small)), min(after, cpu_s(large))
        if after < MOST_GROWTH * before + 0.001:
            break
    assert after < MOST_GROWTH * before + 0.001, (before, after)
    before, after = peak_bytes(small), peak_bytes(large)
    assert after < MOST_GROWTH * before + 64 * KIB, (before, after)
