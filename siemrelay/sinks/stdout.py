"""The standard output sink: one message per line, for a pipe into another program."""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio
from pydantic import Field

from siemrelay.core.errors import SinkHolds, SinkWaits
from siemrelay.core.options import Options, Timeout, show_seconds
from siemrelay.sinks.contract import ProtocolKind, Report, Settlement, no_report
from siemrelay.wire.stream_framing import newline

_STDOUT: Final = 1

# A pipe with room has room for so much (pipe(7)): such a write never blocks, nor delays a stop.
_PIECE_BYTES: Final = select.PIPE_BUF

# A regular file takes anything at once.
_FILE_PIECE_BYTES: Final = 1 << 20

# How long a stop may wait while the reader takes nothing.
_POLL_MS: Final = 100

_NO_READER: Final = frozenset({errno.EPIPE, errno.EBADF, errno.EIO, errno.ECONNRESET})


class StdoutOptions(Options):
    """Options of `protocol: stdout`."""

    timeout: Timeout = Field(30.0, description="how long the reader may take nothing; 5m at most")


class StdoutSink:
    """Messages as lines on standard output."""

    def __init__(self, options: StdoutOptions, descriptor: int = _STDOUT) -> None:
        self._timeout_s, self._descriptor = options.timeout, descriptor
        # The rest of a line that was started: it is written first, so that no line is incomplete.
        self._rest = b""

    @asynccontextmanager
    async def session(self, report: Report = no_report) -> AsyncIterator[StdoutSession]:
        """See `sinks.contract.Sink`."""
        try:
            mode = os.fstat(self._descriptor).st_mode
        except OSError as error:
            raise _fault(error) from error
        yield StdoutSession(self, report, regular=stat.S_ISREG(mode))

    def write(self, data: bytes, piece_bytes: int) -> None:
        """Write whole lines. Blocks while the reader is slow: call it in a thread of trio's.

        Raises SinkWaits, SinkHolds, and Cancelled when the caller is.
        """
        waiting = select.poll()
        waiting.register(self._descriptor, select.POLLOUT)
        whole = self._rest + data
        view, at, progress_at = memoryview(whole), 0, time.monotonic()
        try:
            while at < len(whole):
                if waiting.poll(_POLL_MS):
                    at += self._write_some(view[at : at + piece_bytes])
                    progress_at = time.monotonic()
                    continue
                trio.from_thread.check_cancelled()
                if time.monotonic() - progress_at > self._timeout_s:
                    raise SinkWaits(
                        "the reader of standard output has taken nothing for "
                        f"{show_seconds(self._timeout_s)}"
                    )
        finally:
            self._rest = _rest_of_line(whole, at, len(self._rest))

    def _write_some(self, piece: memoryview) -> int:
        try:
            return os.write(self._descriptor, piece)
        except BlockingIOError:  # the pipe is non-blocking, and another process took the room
            return 0
        except OSError as error:
            raise _fault(error) from error

    def sync(self) -> None:
        """Make a regular file durable. Blocks; raises SinkWaits or SinkHolds."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise _fault(error) from error


class StdoutSession:
    """See `sinks.contract.Session`. A ticket is the number of bytes, which are in the pipe."""

    def __init__(self, sink: StdoutSink, report: Report, *, regular: bool) -> None:
        self._sink, self._report, self._regular = sink, report, regular
        self._piece_bytes = _FILE_PIECE_BYTES if regular else _PIECE_BYTES

    async def send(self, messages: Sequence[bytes]) -> int:
        """See `sinks.contract.Session`. If cancelled within a line, the next batch completes it."""
        data = newline(messages)
        await trio.to_thread.run_sync(self._sink.write, data, self._piece_bytes)
        self._report("send", f"{len(data)} bytes to standard output")
        return len(data)

    async def confirm(self, ticket: int) -> Settlement:
        """See `sinks.contract.Session`; waits for an fsync if the output is a regular file."""
        if self._regular:
            await trio.to_thread.run_sync(self._sink.sync)
            self._report("answer", "the file that standard output goes to is on disk")
        else:
            self._report("answer", "none: the kernel took it for the program that reads the pipe")
        return ()


def _rest_of_line(whole: bytes, at: int, first: int) -> bytes:
    """The rest of the line around `at`, if a part of it was written.

    The first `first` bytes belong to a line that was started earlier.
    """
    if at < first:
        return whole[at:first]
    if at == 0 or whole[at - 1 : at] == b"\n":
        return b""
    return whole[at : whole.index(b"\n", at) + 1]


def _fault(error: OSError) -> SinkWaits | SinkHolds:
    reason = error.strerror or str(error)
    if error.errno in _NO_READER:
        return SinkHolds(
            f"nobody reads standard output: {reason}",
            advice="start the relay again with a reader behind it, or set `enabled: no`",
        )
    return SinkWaits(f"standard output: {reason}")


STDOUT: Final = ProtocolKind(
    StdoutOptions, StdoutSink, "json", "lines on standard output, for another program"
)
