"""The relay's end of one worker: its process, the two pipes to it and the memory they share."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Final

import msgspec
import trio

from siemrelay.net.tasks import Mutex
from siemrelay.pipeline.workers.frames import (
    HEADER_BYTES,
    NO_SLOT,
    Done,
    Job,
    Ready,
    Tables,
    answer,
    asked,
    frame,
    header_of,
)
from siemrelay.pipeline.workers.shared_memory import SLOTS, SharedMemory, create

# What does not fit into the shared memory goes through a pipe of this size. The kernel may allow
# less.
_PIPE_BYTES: Final = 1024 * 1024

# A worker gets these variables and Python's own, and not the secrets that others may hold.
_VARIABLES: Final = ("PATH", "TZ", "TZDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "LD_PRELOAD")

# Meant for the relay, which ends its workers when it has no more use for them.
_SIGNALS: Final = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}

# How long a worker that has closed its pipe may take to end by itself and report why.
_END_S: Final = 1.0


# A batch takes milliseconds, one long record 0.2 s, a start half a second; machines can be busy.
_HANGS_S: Final = 30.0


class WorkerFailed(Exception):
    """The worker ended or answers nonsense: have its batches formatted elsewhere."""


class Worker:
    """Use as a context manager: at its end the process is gone."""

    def __init__(self) -> None:
        """Start the process. Raises OSError if the machine does not let it."""
        with ExitStack() as theirs, ExitStack() as on_failure:
            theirs_in, self._jobs = os.pipe()
            theirs.callback(os.close, theirs_in)
            on_failure.callback(os.close, self._jobs)
            self._answers, theirs_out = os.pipe()
            theirs.callback(os.close, theirs_out)
            on_failure.callback(os.close, self._answers)
            for descriptor in (self._jobs, self._answers):
                os.set_blocking(descriptor, False)
                with suppress(OSError):
                    fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            shared = create()
            theirs.callback(os.close, shared)
            self._memory = SharedMemory(shared, of_worker=False)
            on_failure.callback(self._memory.close)
            self._process = _start(theirs_in, theirs_out, shared)
            on_failure.pop_all()
        self.pid = self._process.pid
        self._tables: Tables | None = None
        self._sending, self._receiving = Mutex(), Mutex()
        self._room, self._free_slots = trio.Semaphore(SLOTS), [*range(SLOTS)]

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        for descriptor in (self._jobs, self._answers):
            trio.lowlevel.notify_closing(descriptor)
            os.close(descriptor)
        # It holds nothing that would be lost.
        self._process.kill()
        self._process.wait()
        self._memory.close()

    async def prepare(self, tables: Tables) -> None:
        """Wait until the worker can format with these tables. Raises WorkerFailed."""
        with _answering():
            await self._send(tables)
            await self._receive()
        self._tables = tables

    async def format(self, tables: Tables, job: Job) -> Done:
        """Have a batch formatted; the answer. Raises WorkerFailed.

        Several tasks may call it: while the worker formats for one, it has the batch of the next.
        If cancelled, the worker cannot be used any more.
        """
        async with self._room:
            slot = self._free_slots.pop()
            async with self._sending:
                renewed = tables is not self._tables
                with _answering():
                    if renewed:
                        await self._send(tables)
                        self._tables = tables
                    await self._send(*asked(job, slot), slot)
            # Those that wait for an answer do so in the order in which they sent their questions.
            async with self._receiving:
                if renewed:
                    with _answering():
                        await self._receive()
                with _answering():
                    message = await self._receive()
            self._free_slots.append(slot)
        if not isinstance(message, Done):
            raise WorkerFailed("it answered another question")
        return message

    async def _send(
        self, message: Tables | Job, data: Sequence[bytes] = (), slot: int = NO_SLOT
    ) -> None:
        if slot != NO_SLOT and self._memory.put(slot, data):
            await self._write(frame(message, data, slot))
        else:
            await self._write(b"".join((frame(message, data), *data)))

    async def _write(self, data: bytes | bytearray) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._jobs, left) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._jobs)
            except BrokenPipeError:
                return  # `_receive` finds out why

    async def _receive(self) -> Ready | Done:
        header = header_of(await self._read(HEADER_BYTES))
        body = await self._read(header.message_bytes)
        if header.slot == NO_SLOT:
            data = bytes(await self._read(header.data_bytes))
        else:
            data = self._memory.take(header.slot, header.data_bytes)
        try:
            return answer(body, data)
        except msgspec.MsgspecError as error:
            raise WorkerFailed(f"its answer makes no sense: {error}") from error

    async def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        left = memoryview(data)
        while left:
            try:
                got = os.readv(self._answers, [left])
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._answers)
                continue
            if not got:
                raise WorkerFailed(await self._end())
            left = left[got:]
        return data

    async def _end(self) -> str:
        try:
            code = await trio.to_thread.run_sync(partial(self._process.wait, _END_S))
        except subprocess.TimeoutExpired:
            return "it closed its pipe"
        if code < 0:
            return f"it was ended by {_name(-code)}"
        return f"it ended with exit code {code}"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of the real-time signals, most of which have none
        return f"signal {number}"


@contextmanager
def _answering() -> Iterator[None]:
    """Raises WorkerFailed if what the worker has to do meanwhile takes too long."""
    with trio.move_on_after(_HANGS_S) as patience:
        yield
    if patience.cancelled_caught:
        raise WorkerFailed(f"it has not answered for {_HANGS_S:.0f} s")


def _start(jobs: int, answers: int, shared: int) -> subprocess.Popen[bytes]:
    variables = {
        name: value
        for name, value in os.environ.items()
        if name in _VARIABLES or name.startswith("PYTHON")
    }
    # The same modules as here, wherever they were found.
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-P", "-m", "siemrelay.pipeline.workers.process"]
    command += [str(os.getpid()), str(shared)]
    # Blocked signals stay so in the new process. A handler could only be set when it has begun.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        return subprocess.Popen(
            command, stdin=jobs, stdout=answers, env=variables, pass_fds=[shared]
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
