"""The file source: follows log files through rotation, truncation, renames and compression."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any, Final

import structlog
import trio

from siemrelay.net.tasks import next_second
from siemrelay.sources.contract import Intake, Position, Records, SourceKind
from siemrelay.sources.file.checkpoints import CheckpointStore
from siemrelay.sources.file.content import CompressedContent
from siemrelay.sources.file.disk import Disk, FileId
from siemrelay.sources.file.finder import Finder, Globs
from siemrelay.sources.file.fingerprint import ContentChanged
from siemrelay.sources.file.options import FileOptions
from siemrelay.sources.file.reader import FileMoved, FollowedFile
from siemrelay.sources.file.schedule import Schedule, pause_after_full_survey
from siemrelay.sources.file.tracker import Tracker
from siemrelay.sources.file.warnings import MissingLogs, UnreadableFiles
from siemrelay.sources.file.watcher import Watcher
from siemrelay.sources.framing import text_framing
from siemrelay.wire.framing.contract import Chunk, Framing

# So much is a batch by itself; of less, more is waited for within the relay's `batch_window`.
_BATCH_BYTES: Final = 64 * 1024
# How often to ask for what is due without anything being written (incomplete last lines of
# rotated files, files that may be copies); these wait for a second or more.
_TICK_S: Final = 0.25
# How often the lag is counted while reading: it is a metric, scraped every few seconds.
_LAG_EVERY_S: Final = 1.0
# A look at what events say has changed is followed by a pause this many times as long as it took:
# rotation of a full directory, too, leaves time for reading.
_PAUSE_PER_SURVEY: Final = 2

# How long a relay that stops reads on in deleted files: much less than systemd gives it to stop.
_LAST_READS_S: Final = 5.0


class FileSource:
    """Reads every record of the matching files once, in order, and goes on after a restart.

    Two starts deliver a record twice only if its position was not stored with it.
    """

    def __init__(self, name: str, options: FileOptions, framing: Framing | None = None) -> None:
        """`framing` finds the records in the files; by default it is that of the options."""
        self.name, self._options = name, options
        self._framing = framing or text_framing(options)

    async def run(self, intake: Intake, *, drain: bool) -> None:
        """Follow the files for ever; with `drain`, return when what there is now was offered.

        With `drain` an incomplete last line is taken as a record. Files that cannot be read are
        logged, reported to the intake, and tried again. If cancelled, what is unread in deleted
        files, which nobody can read later, is offered for some seconds yet; then all are closed.
        """
        log = structlog.get_logger().bind(source=self.name)
        following = _Following(self._options, self._framing, intake, log, drain=drain)
        try:
            await following.start()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(following.every_second)
                await (following.drain() if drain else following.follow())
                nursery.cancel_scope.cancel()
        finally:
            if trio.current_effective_deadline() == float("-inf"):
                with trio.move_on_after(_LAST_READS_S, shield=True):
                    await following.read_deleted()
            following.close()


class _Following:
    """One run of a source: surveys and reads in turns."""

    def __init__(
        self, options: FileOptions, framing: Framing, intake: Intake, log: Any,
        *, drain: bool,
    ) -> None:  # fmt: skip
        self._intake, self._log, self._drains, self._poll_s = intake, log, drain, options.poll
        globs = self._globs = Globs(options.patterns)
        disk = self._disk = Disk(options.follow_links)
        stored, self._store = intake.positions(), CheckpointStore()
        for key, why in self._store.load(stored).items():
            log.error("cannot understand a stored position, ignoring it", key=key, why=why)
        self._from_end = options.start_at == "end" and not stored
        if self._from_end:
            self._store.note_begun()
        self._missing = MissingLogs(globs, self._store, disk, log)
        self._watcher = Watcher(log, globs.is_wanted)
        self._schedule = Schedule(log, drain=drain)
        self._unreadable = UnreadableFiles(log, intake.unreadable)
        self._tracker = Tracker(
            Finder(globs, disk), self._watcher, disk, self._store, self._schedule,
            self._unreadable, self._lost, log, framing=framing,
        )  # fmt: skip
        self._next_survey = self._next_full_survey = self._next_look = self._next_lag = 0.0
        self._taken_bytes, self._scope, self._waits = 0, trio.CancelScope(), False
        self._look_due = False  # whether the scope was cancelled for a look
        self._trickles = False  # whether several records come in a `batch_window`
        self._unoffered: tuple[Records, ...] = ()
        """Records that were read, while the intake has not taken them."""

    async def start(self) -> None:
        """Look at what there is."""
        if not self._drains:
            await trio.to_thread.run_sync(self._watcher.open)
        await self._survey(from_end=self._from_end)
        files, patterns = len(self._tracker.files), self._globs.patterns
        if files:
            self._log.info("following files", files=files, patterns=patterns)
        elif not self._unreadable.count:  # else it has been logged why
            self._log.warning("no file matches `path`", patterns=patterns,
                              advice="one is read as soon as it appears")  # fmt: skip

    async def _survey(self, *, full: bool = True, from_end: bool = False) -> None:
        def survey() -> None:
            self._tracker.survey(full=full, from_end=from_end, final=self._drains)
            self._missing.warn(self._tracker.files.values())

        began = trio.current_time()
        await trio.to_thread.run_sync(survey)
        self._intake.following(files := len(self._tracker.files))
        now = trio.current_time()
        self._next_survey = now + _PAUSE_PER_SURVEY * (now - began)
        if full:
            pause_s = pause_after_full_survey(
                files, now - began, self._poll_s, events_suffice=self._tracker.events_suffice
            )
            # On a full second, if it can be: see `every_second`.
            due_at = now + pause_s
            self._next_full_survey = due_at if pause_s < 1 else float(math.floor(due_at))

    async def follow(self) -> None:
        """Read what is written, for ever."""
        while True:
            # A scope for each wait would cost a tenth of a lone event, so all until the next look
            # share one, which `every_second` cancels.
            self._waits = self._look_due = False
            with trio.CancelScope() as self._scope:
                await self._follow(self._scope)

    async def _follow(self, waiting: trio.CancelScope) -> None:
        """As `follow`, until nothing was written for so long that a look is due."""
        tracker, schedule = self._tracker, self._schedule
        while not self._look_due:
            tracker.collect()
            if schedule.later:
                schedule.wake_later()
            now = trio.current_time()
            full = now >= self._next_full_survey
            looks = tracker.undecided and now >= self._next_look
            if full or looks or (tracker.survey_due and now >= self._next_survey):
                await self._survey(full=full)
                self._next_look = trio.current_time() + _TICK_S
            if positions := self._store.take_changes():
                await self._store_positions(positions)
            moved = await self._round()
            if not moved or now >= self._next_lag:
                self._intake.lag(tracker.unread())
                self._next_lag = now + _LAG_EVERY_S
            ready = schedule.ready
            if moved and ready:
                await trio.lowlevel.checkpoint()
                if self._taken_bytes < _BATCH_BYTES:
                    await self._intake.turn()
            elif tracker.survey_due:
                await trio.sleep_until(self._next_survey)
            elif ready:
                await trio.lowlevel.checkpoint()
            elif moved and self._trickles:
                # More will come before the next moment: to wait for that alone is one wake-up.
                await self._intake.turn()
            else:
                if not moved:  # else the commit is a sign of life
                    self._intake.progress()
                if soon := schedule.later or tracker.undecided or self._poll_s < 1:
                    waiting.deadline = min(self._next_full_survey, trio.current_time() + _TICK_S)
                self._waits = True
                await self._watcher.wait()
                self._waits = False
                if soon:
                    self._look_due = self._look_due or waiting.cancel_called
                    waiting.deadline = math.inf
                if not self._look_due:
                    self._trickles = await self._intake.turn()

    async def every_second(self) -> None:
        """Wake `follow` for its next look; count what is unread while a full buffer stops it."""
        while True:
            await next_second()
            if self._waits and trio.current_time() >= self._next_full_survey:
                self._look_due = True
                self._scope.cancel()
            if self._intake.full:
                files = self._tracker.files
                seen = [(file.path, file_id, file.size) for file_id, file in files.items()]
                grown = await trio.to_thread.run_sync(self._growth, seen)
                self._intake.lag(self._tracker.unread() + grown)

    def _growth(self, seen: list[tuple[str, FileId, int]]) -> int:
        now = ((self._disk.status(path), file_id, size) for path, file_id, size in seen)
        return sum(max(status.size - size, 0) for status, file_id, size in now
                   if status is not None and status.file_id == file_id)  # fmt: skip

    async def drain(self) -> None:
        """Read what is there now; some of what is written meanwhile may come along."""
        tracker = self._tracker
        ends = [(file, file.size) for file in tracker.files.values()]
        looked = False
        while True:
            await self._store_positions(self._store.take_changes())
            moved = await self._round()
            self._intake.lag(tracker.unread())
            over = not (moved or self._schedule.ready)
            if tracker.survey_due or (over and tracker.undecided and not looked):
                await self._survey()
                looked = over
            elif over or all(file.has_reached(end) for file, end in ends):
                break
            else:
                looked = False
            await trio.lowlevel.checkpoint()
        await self._store_positions(self._store.take_changes())
        self._missing.warn(tracker.files.values())

    async def _store_positions(self, positions: tuple[Position, ...]) -> None:
        """Store positions that changed though nothing was read."""
        if positions:
            await self._intake.offer(Records(b"", 0, positions))
            self._tracker.collect()

    async def _round(self) -> bool:
        """One turn for every family that may have something; whether anything was read.

        A turn is one read (1 MiB, or one long record) of the oldest generation that has
        something, so that a backlog in one log does not hold up the others.
        """
        moved, self._taken_bytes = False, 0
        for family in self._schedule.ready:
            moved = await self._turn(family) or moved
        return moved

    async def _turn(self, family: str) -> bool:
        last: FollowedFile | None = None
        moved = False
        while (due := self._tracker.next_read(family)) is not None and due[0] is not last:
            last, finish = due
            try:
                try:
                    chunk = last.read_in_memory(finish=finish)
                except BlockingIOError:
                    chunk = await self._read(last, finish=finish)
            except ContentChanged:
                self._tracker.truncated(last)
                return True
            except FileMoved:
                self._tracker.moved(last)
                return moved
            except OSError as error:
                self._tracker.failed(last, error)
                continue
            if chunk is not None:
                moved = True
                await self._hand_over(last, chunk)
            if last.ready or (self._tracker.events_suffice and self._schedule.is_over(last)):
                break
        return moved

    async def _read(self, file: FollowedFile, *, finish: bool) -> Chunk | None:
        """Read what is not in memory, in a thread.

        What was written lately is: to take it is done sooner than a hop to a thread, which on a
        busy machine waits for its turn there and back.
        """
        return await trio.to_thread.run_sync(lambda: file.read(finish=finish, disk=self._disk))

    async def _hand_over(self, file: FollowedFile, chunk: Chunk) -> None:
        self._taken_bytes += len(chunk.consumed)
        for size in chunk.oversize:
            self._intake.oversize(size)
        if not chunk.count and (skipped := file.take_skipped_nuls()):
            self._note_hole(file, skipped)
        # What is to be stored already goes first: it may hold an earlier position of this file.
        positions = (*self._store.take_changes(), file.progress.position())
        records = Records(chunk.payload, chunk.count, positions, chunk.part, file.mtime_s)
        self._unoffered = (records,)
        if chunk.apart:
            # One commit has all of them, so the positions may be with any.
            apart = (Records(text, count, (), None, file.mtime_s) for text, count in chunk.apart)
            self._unoffered = (records, *apart)
        await self._intake.offer(*self._unoffered)
        self._unoffered = ()
        self._unreadable.discard(file.path)
        if file.progress.finished_size is not None:
            content = file.content
            damage = content.damage if isinstance(content, CompressedContent) else None
            if damage is not None:
                self._log.error("damaged compressed file, took what could be read",
                                path=file.progress.path, damage=damage)  # fmt: skip
            else:
                self._log.info("file read to its end", path=file.progress.path)
            file.close()

    async def read_deleted(self) -> None:
        """Read what only an open descriptor leads to, now that the relay stops; the generations
        before it first, so that the order is kept.
        """
        tracker = self._tracker
        if not await trio.to_thread.run_sync(tracker.settle_deleted):
            return
        # What was read before it goes first: the files go on behind it.
        if self._unoffered:
            await self._intake.offer(*self._unoffered)
            self._unoffered = ()
        for family in {file.family for file in tracker.deleted_unread()}:
            while any(file.family == family for file in tracker.deleted_unread()):
                if await self._turn(family):
                    continue
                if not tracker.survey_due:
                    await self._take_last_line(family)
                    break
                await self._survey(full=False)

    async def _take_last_line(self, family: str) -> None:
        """Take the incomplete line in which a deleted file ends, if it is the next to be read."""
        unread = [file for file in self._schedule.family(family) if file.unread]
        if unread and unread[0] in self._tracker.deleted_unread():
            with suppress(ContentChanged, FileMoved, OSError):
                if (chunk := await self._read(unread[0], finish=True)) is not None:
                    await self._hand_over(unread[0], chunk)

    def _note_hole(self, file: FollowedFile, nuls: int) -> None:
        self._intake.skipped_nuls(nuls)
        if not file.hole_noted:
            file.hole_noted = True
            self._log.warning(
                "skipping a hole in the file: NULs, which hold no record",
                path=file.progress.path, nuls=nuls,
                advice="after a crash of the machine this is what was not yet on its disk; with "
                "`copytruncate` let the program open its log for appending",
            )  # fmt: skip

    def _lost(self, path: str, unread_bytes: int) -> None:
        self._log.error("records are lost: the file disappeared before it was read to its end",
                        path=path, unread_bytes=unread_bytes,
                        advice="keep rotated files for longer, and let `path` match rotated names, "
                        "too")  # fmt: skip
        self._intake.lost_bytes(unread_bytes)

    def close(self) -> None:
        """Close every file."""
        self._tracker.close()
        self._watcher.close()


FILE: Final = SourceKind(
    FileOptions, FileSource, "json", "files by glob, followed through rotation", framed=True
)
