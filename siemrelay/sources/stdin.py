"""The standard input source: `something | siemrelay run --drain`."""

from __future__ import annotations

import os
import select
import sys
from typing import Final

import structlog
import trio

from siemrelay.net.tasks import report_alive
from siemrelay.sources.contract import Intake, SourceKind
from siemrelay.sources.framing import FramingOptions, RecordStream, text_framing
from siemrelay.sources.pacing import StreamPace
from siemrelay.wire.framing.contract import Framing

# As much as the file source reads at once, and eight times what a pipe holds.
_READ_BYTES: Final = 512 * 1024

# A thread waits for input at most this long; a stop waits for it.
_WAIT_S: Final = 0.2


class StdinOptions(FramingOptions):
    """Options of `type: stdin`."""


class StdinSource:
    """Every record of standard input, also a last one without a line feed.

    A pipe cannot be read again: lines that were read and are not on disk are lost when the process
    is killed.
    """

    def __init__(self, name: str, options: StdinOptions, framing: Framing | None = None) -> None:
        """`framing` finds the records; by default it is that of the options."""
        self.name = name
        self._stream = RecordStream(framing or text_framing(options))

    async def run(self, intake: Intake, *, drain: bool) -> None:
        """Read until the end; then return if `drain`, else wait for ever. See `Source`."""
        log, pace = structlog.get_logger().bind(source=self.name), StreamPace(intake)
        stream, quiet_s = self._stream, 0.0
        while (data := await trio.to_thread.run_sync(_read)) != b"":
            intake.progress()
            quiet_s = 0.0 if data else quiet_s + _WAIT_S
            for records in stream.feed(data) if data else stream.pause(quiet_s):
                await intake.offer(records)
            for size in stream.oversize:
                intake.oversize(size)
            stream.oversize.clear()
            if data:  # after it was offered: a stop would lose what was read and waits
                pace.note_read(len(data))
                await pace.turn()
        for records in stream.end():
            await intake.offer(records)
        if not drain:
            log.info("standard input ended")
            await report_alive(intake.progress)


def _read() -> bytes | None:
    """The next input; empty at its end, None after a while without any."""
    if sys.stdin is None:
        return b""  # it was closed at the start; its descriptor may be another file's by now
    descriptor = sys.stdin.fileno()
    # Regular files, terminals and pipes alike; a file is always ready.
    if not select.select([descriptor], [], [], _WAIT_S)[0]:
        return None
    return os.read(descriptor, _READ_BYTES)


STDIN: Final = SourceKind(
    StdinOptions, StdinSource, "json", "standard input, a record a line", alone=True, framed=True
)
