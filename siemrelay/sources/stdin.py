"""The standard input source: `something | siemrelay run --drain`."""

from __future__ import annotations

import os
import select
import sys
from typing import Final

import structlog
import trio
from pydantic import Field

from siemrelay.core.options import Options
from siemrelay.net.tasks import report_alive
from siemrelay.sources.chunks import LineSplitter, RecordSize
from siemrelay.sources.contract import Intake, SourceKind
from siemrelay.sources.pacing import StreamPace

# As much as the file source reads at once, and eight times what a pipe holds.
_READ_BYTES: Final = 512 * 1024

# A thread waits for input at most this long; a stop waits for it.
_WAIT_S: Final = 0.2


class StdinOptions(Options):
    """Options of `type: stdin`."""

    max_record_size: RecordSize = Field(
        1 << 20,
        description="Longer records are counted as oversize, and kept. Those over 16 MiB are "
        "split into parts.",
    )


class StdinSource:
    """Every line of standard input, also a last one without a line feed.

    A pipe cannot be read again: lines that were read and are not on disk are lost when the process
    is killed.
    """

    def __init__(self, name: str, options: StdinOptions) -> None:
        self.name = name
        self._lines = LineSplitter(options.max_record_size)

    async def run(self, intake: Intake, *, drain: bool) -> None:
        """Read until the end; then return if `drain`, else wait for ever. See `Source`."""
        log, pace = structlog.get_logger().bind(source=self.name), StreamPace(intake)
        while (data := await trio.to_thread.run_sync(_read)) != b"":
            intake.progress()
            for records in self._lines.feed(data or b""):
                await intake.offer(records)
            for size in self._lines.oversize:
                intake.oversize(size)
            self._lines.oversize.clear()
            if data:  # after it was offered: a stop would lose what was read and waits
                pace.note_read(len(data))
                await pace.turn()
        for records in self._lines.end():
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
    StdinOptions, StdinSource, "json", "standard input, a record a line", alone=True
)
