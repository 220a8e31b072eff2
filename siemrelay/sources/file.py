"""The file source: follows log files through rotation, truncation, renames and compression."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, Literal

import structlog
import trio
from pydantic import AfterValidator, Discriminator, Field, StringConstraints, Tag

from siemrelay.core.options import Duration, Options, Size, absolute
from siemrelay.sources.contract import Intake, SourceKind
from siemrelay.sources.cutting import MAX_WHOLE_BYTES
from siemrelay.sources.departed import Departed
from siemrelay.sources.globbing import Globs
from siemrelay.sources.reading import Reading
from siemrelay.sources.recognition import Recognition
from siemrelay.sources.tracking import Tracking
from siemrelay.sources.troubles import Troubles
from siemrelay.sources.watching import Watch

# After a read of what was just written, the pause before the next: a line after a quiet time goes
# at once, lines in quick succession go together, which costs a batch for all instead of one each.
_GATHER_S: Final = 0.002
# How often to ask for what is due without anything being written (incomplete last lines of
# rotated files, files that may be copies); these wait for a second or more.
_TICK_S: Final = 0.25
# How often the lag is counted while reading: it is a metric, scraped every few seconds.
_LAG_EVERY_S: Final = 0.25

Pattern = Annotated[str, StringConstraints(min_length=1), AfterValidator(absolute)]


class FileOptions(Options):
    """Settings of `type: file`."""

    path: Annotated[
        Annotated[Pattern, Tag("one")]
        | Annotated[list[Pattern], Field(min_length=1), Tag("several")],
        # Chosen before it is judged, so that a fault in a list is not said to be the list itself.
        Discriminator(lambda value: "several" if isinstance(value, list) else "one"),
        Field(
            description="Glob, or list of globs, of the files to follow. Match the rotated names "
            "too (`audit.log*`) and nothing is missed however often a file is rotated while the "
            "relay is stopped: the copy of a log that was read, made by `copytruncate` "
            "(`audit.log.1`) or gzip (`audit.log.1.gz`), is recognised and only its rest is read. "
            "A copy under another log's name (`copy.log`) is read as a file of its own, and so is, "
            "at the very first start, a compressed log beside its original."
        ),
    ]
    start_at: Literal["beginning", "end"] = Field(
        "beginning",
        description="Where to start in the files that are there at the very first start. Files "
        "that appear later are always read from their beginning.",
    )
    max_record_size: Annotated[Size, Field(gt=0, le=MAX_WHOLE_BYTES)] = Field(
        1 << 20,
        description="Longer records are counted as oversize, and kept. Those over 16 MiB are "
        "split into parts.",
    )
    poll: Annotated[Duration, Field(gt=0)] = Field(
        1.0,
        description="How often to look for changes that inotify did not tell of (network file "
        "systems, limits reached).",
    )

    @property
    def patterns(self) -> list[str]:
        """The globs."""
        return [self.path] if isinstance(self.path, str) else self.path


class FileSource:
    """Reads every record of the matching files once, in order, and goes on after a restart.

    Two starts deliver a record twice only if its position was not stored with it.
    """

    def __init__(self, name: str, options: FileOptions) -> None:
        self.name, self._options = name, options

    async def run(self, intake: Intake, *, drain: bool) -> None:
        """Follow the files for ever; with `drain`, return when what there is now was offered.

        With `drain` an incomplete last line is taken as a record. Files that cannot be read are
        logged, said to be a trouble, and tried again; if cancelled, all files are closed.
        """
        log = structlog.get_logger().bind(source=self.name)
        globs = Globs(self._options.patterns)
        watch = Watch(log, globs.is_wanted)
        recognition = Recognition(log, max_record_bytes=self._options.max_record_size)
        tracking = Tracking(globs, watch, recognition, Troubles(log, intake.trouble), log)
        reading = Reading(tracking, recognition, intake, log, drain=drain)
        stored = intake.positions()
        recognition.recall(stored)
        departed = Departed(globs, recognition.memory, log)
        from_end = self._options.start_at == "end" and not stored
        if from_end:
            recognition.mark_begun()

        def survey(*, from_end: bool = False) -> None:
            tracking.survey(from_end=from_end)
            departed.tell(tracking.files.values())

        try:
            if not drain:
                await trio.to_thread.run_sync(watch.open)
            await trio.to_thread.run_sync(lambda: survey(from_end=from_end))
            log.info("following", files=len(tracking.files), patterns=globs.patterns)
            if drain:
                await _drain(tracking, reading, intake, watch)
                departed.tell(tracking.files.values())
            else:
                await self._follow(tracking, reading, intake, watch, survey)
        finally:
            tracking.close()
            watch.close()

    async def _follow(
        self, tracking: Tracking, reading: Reading, intake: Intake, watch: Watch,
        survey: Callable[[], None],
    ) -> None:  # fmt: skip
        poll_s = self._options.poll
        next_survey = trio.current_time() + poll_s
        next_lag = trio.current_time()
        while True:
            now = trio.current_time()
            if watch.look_around or now >= next_survey:
                await trio.to_thread.run_sync(survey)
                next_survey = now + poll_s
            await reading.store_positions()
            moved = await reading.round()
            if not moved or now >= next_lag:
                intake.lag(tracking.unread())
                next_lag = now + _LAG_EVERY_S
            if tracking.stirred:
                await trio.lowlevel.checkpoint()
            elif moved:
                await trio.sleep(_GATHER_S)
            else:
                intake.progress()
                pause_s = max(next_survey - trio.current_time(), 0.0)
                with trio.move_on_after(min(pause_s, _TICK_S) if reading.waiting else pause_s):
                    await watch.wait()
            tracking.collect()
            tracking.stirred.update(dict.fromkeys(reading.waiting))


async def _drain(tracking: Tracking, reading: Reading, intake: Intake, watch: Watch) -> None:
    """Read what is there now; some of what is written meanwhile may come along."""
    ends = [(followed, followed.size) for followed in tracking.files.values()]
    while True:
        await reading.store_positions()
        moved = await reading.round()
        intake.lag(tracking.unread())
        if watch.look_around:  # a file was truncated
            await trio.to_thread.run_sync(tracking.survey)
        elif (not moved and not tracking.stirred) or all(f.has_reached(end) for f, end in ends):
            break
        await trio.lowlevel.checkpoint()
    await reading.store_positions()


FILE: Final = SourceKind(
    FileOptions, FileSource, "json", "files by glob, followed through rotation"
)
