"""A worker: a process that formats batches. `python -m siemrelay.pipeline.workers.process`.

Jobs come on standard input, answers go to standard output. It ends when the relay closes its input
or dies, and holds nothing that would be lost: whatever it has not answered is done again.

Arguments: the relay's process id, and the descriptor of the memory that both share.
"""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from siemrelay.pipeline.formatting.formatter import Formatter
from siemrelay.pipeline.heap import prepare_heap
from siemrelay.pipeline.workers.frames import (
    HEADER_BYTES,
    NO_SLOT,
    FrameHeader,
    Job,
    Ready,
    Tables,
    answered,
    frame,
    header_of,
    question,
)
from siemrelay.pipeline.workers.shared_memory import SharedMemory

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
    memory = SharedMemory(int(sys.argv[2]), of_worker=True)
    formatter: Formatter | None = None
    while True:
        waits_since = time.monotonic()
        header = _exactly(HEADER_BYTES)
        waited_s = time.monotonic() - waits_since
        if header is None or (message := _read(memory, header_of(header))) is None:
            return
        if isinstance(message, Tables):
            formatter = _formatter(message)
            _write(answers, frame(Ready()))
            continue
        assert formatter is not None, "tables come before jobs"
        answer, data = answered(formatter.formatted(message.batch, message.wanted))
        answer.waited_s = waited_s
        if memory.put(message.slot, data):
            _write(answers, frame(answer, data, message.slot))
        else:
            _write(answers, frame(answer, data), *data)


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


def _read(memory: SharedMemory, header: FrameHeader) -> Tables | Job | None:
    """The relay's message with that header; None if it has closed the input."""
    if (body := _exactly(header.message_bytes)) is None:
        return None
    if header.slot == NO_SLOT:
        return question(body, bytes(_exactly(header.data_bytes) or b""))
    return question(body, memory.take(header.slot, header.data_bytes))


def _exactly(size: int) -> bytearray | None:
    data = bytearray(size)
    view, have = memoryview(data), 0
    while have < size:
        got = os.readv(0, [view[have:]])
        if not got:
            return None
        have += got
    return data


def _write(descriptor: int, *parts: bytes | bytearray) -> None:
    try:
        for part in parts:
            view = memoryview(part)
            while view:
                view = view[os.write(descriptor, view) :]
    except BrokenPipeError:
        sys.exit(0)  # the relay has ended


if __name__ == "__main__":
    main()
