"""A worker: a process that formats batches. `python -m siemrelay.pipeline.workers.process`.

Jobs come on standard input, answers go to standard output. It ends when the relay closes its input
or dies, and holds nothing that would be lost: whatever it has not answered is done again.
"""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from siemrelay.pipeline.formatting.formatter import Formatter
from siemrelay.pipeline.heap import prepare_heap
from siemrelay.pipeline.workers.frames import (
    HEADER_BYTES,
    Ready,
    Tables,
    done,
    frame,
    length_of,
    question,
)

# prctl(2): the signal that this process gets when its parent dies.
_PR_SET_PDEATHSIG: Final = 1

# proc(5): from -1000 to 1000; the kernel ends the highest first when memory runs out.
_OOM_SCORE: Final = "500"


def main() -> None:
    """Answer until the relay closes the input."""
    _die_with_the_relay(int(sys.argv[1]))
    prepare_heap()
    with suppress(OSError):  # before the relay, which holds what a worker does not
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    # What is printed by mistake must not stand among the answers.
    answers = os.dup(1)
    os.dup2(2, 1)
    formatter: Formatter | None = None
    while (body := _read()) is not None:
        message = question(body)
        del body
        if isinstance(message, Tables):
            formatter = _formatter(message)
            _write(answers, frame(Ready()))
        else:
            assert formatter is not None, "tables come before jobs"
            _write(answers, frame(done(formatter.formatted(message.batch, message.wanted))))


def _die_with_the_relay(parent: int) -> None:
    # The closed pipe is enough, but for a worker that hangs.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)  # it had died before


def _formatter(tables: Tables) -> Formatter:
    make = pickle.loads(tables.pickled)  # from the relay itself, over a pipe of its own
    formatter: Formatter = make()
    gc.freeze()
    gc.set_threshold(tables.gc_threshold)
    return formatter


def _read() -> bytearray | None:
    header = _exactly(HEADER_BYTES)
    return None if header is None else _exactly(length_of(header))


def _exactly(size: int) -> bytearray | None:
    data = bytearray(size)
    view, have = memoryview(data), 0
    while have < size:
        got = os.readv(0, [view[have:]])
        if not got:
            return None
        have += got
    return data


def _write(descriptor: int, data: bytearray) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except BrokenPipeError:
        sys.exit(0)  # the relay has ended


if __name__ == "__main__":
    main()
