"""The files of one source: gathers what there is, and carries out what `reconcile` decides."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import msgspec

from siemrelay.sources.file.checkpoints import CheckpointStore, printable
from siemrelay.sources.file.disk import Disk, FileId
from siemrelay.sources.file.finder import Finder
from siemrelay.sources.file.fingerprint import PREFIX_BYTES, ContentChanged, Progress
from siemrelay.sources.file.reader import FileMoved, FollowedFile
from siemrelay.sources.file.reconcile import (
    Action,
    Begin,
    Copied,
    FollowOn,
    Known,
    Lost,
    Orphan,
    Recovered,
    Renamed,
    Resume,
    Retired,
    Stage,
    Truncated,
    Wait,
    reconcile,
)
from siemrelay.sources.file.schedule import Schedule
from siemrelay.sources.file.survey import Surveyor
from siemrelay.sources.file.warnings import UnreadableFiles
from siemrelay.sources.file.watcher import Changes, Reliability, Watching
from siemrelay.wire.framing.contract import Framing

# How often what was decided may ask for another look at once: a truncated file begins anew.
_ROUNDS: Final = 5
# How often to look for checkpoints that are too old.
_EXPIRE_EVERY_S: Final = 60.0


class Tracker:
    """Which files there are and how far each was read. One task at a time uses it, on any thread.

    Every look at the disk is a `survey`: find and open new files, gather the facts, reconcile,
    carry out. Nothing else changes which files are followed, or what for.
    """

    def __init__(
        self, finder: Finder, watcher: Watching, disk: Disk, store: CheckpointStore,
        schedule: Schedule, unreadable: UnreadableFiles, lost: Callable[[str, int], None],
        log: Any, *, framing: Framing,
        clock: Callable[[], float] = time.monotonic, wall_clock: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        """`lost` is called with the path and the number of bytes that can no longer be read."""
        self._finder, self._watcher, self._disk, self._store = finder, watcher, disk, store
        self._unreadable, self._lost, self._log = unreadable, lost, log
        self._clock, self._wall_clock = clock, wall_clock
        self.schedule = schedule
        self.files: dict[FileId, FollowedFile] = {}
        self._surveyor = Surveyor(
            finder, watcher, disk, store, schedule, unreadable, log,
            framing=framing, clock=clock, wall_clock=wall_clock, pause=pause,
        )  # fmt: skip
        self._orphans: dict[str, tuple[str, Orphan]] = {}
        self._renewed: dict[FileId, FollowedFile] = {}
        """Open files whose content was truncated, to be met anew by the next survey."""
        self._changes = Changes(everything=True)
        self._again = self._collected = False
        self.undecided = False
        """Whether there are files that may be copies, or contents whose copy may turn up."""
        self._first, self._events = True, Reliability()
        self._closed: list[str] = []
        self._next_expiry = clock()

    @property
    def survey_due(self) -> bool:
        """Whether files were created, renamed, deleted or truncated since the last survey."""
        return self._again or self._changes.call_for_survey

    @property
    def events_suffice(self) -> bool:
        """Whether surveys find nothing that no event reported."""
        return self._watcher.active and self._events.proven

    def unread(self) -> int:
        """How many bytes are known to wait in all files."""
        return sum(file.unread for file in self.files.values())

    def collect(self) -> None:
        """Take in what the watcher has to report."""
        self._collected = True
        if (changes := self._watcher.take_changes()) is None:
            return
        self._events.reported(changes)
        for file_id in changes.written:
            if (file := self.files.get(file_id)) is not None:
                file.ready = True
                self.schedule.wake(file)
        if changes.call_for_survey:
            self._changes.entries |= changes.entries
            self._changes.moved |= changes.moved
            self._changes.everything |= changes.everything

    def next_read(self, family_name: str) -> tuple[FollowedFile, bool] | None:
        """As `Schedule.next_read`; a file that was truncated is left for the next survey."""
        if not self._collected:
            self.collect()
        self._collected = False
        turn = self.schedule.next_read(family_name, survey_due=self.survey_due)
        if turn is not None and turn[0].changed:
            self._again = True
            return None
        return turn

    def truncated(self, file: FollowedFile) -> None:
        """A read found that what was read of a file is gone: the next survey deals with it."""
        file.changed = self._again = True

    def moved(self, file: FollowedFile) -> None:
        """A closed file could not be found under its name: the next survey looks for it."""
        file.ready = False
        self._again = self._changes.everything = True

    def read(self, file: FollowedFile) -> None:
        """A file could be read."""
        self._unreadable.discard(file.path)

    def failed(self, file: FollowedFile, error: OSError) -> None:
        """A file could not be read: it is tried again when it changes and at every survey."""
        self._unreadable.add(file.path, error)
        file.try_later()

    def survey(self, *, full: bool, from_end: bool = False, final: bool = False) -> None:
        """Look at the disk and act on every change. Blocks on the disk.

        `full`: look at every file, also where no event says that it changed. `from_end`: skip
        what is in new files. `final`: decide at once what may be a copy.
        """
        found, every = False, full
        for _ in range(_ROUNDS):
            self._again = False
            orphans = {key: orphan for key, (_, orphan) in self._orphans.items()}
            known = {file_id: self._known(file) for file_id, file in self.files.items()}
            renewed, self._renewed = self._renewed, {}
            facts = self._surveyor.survey(
                self.files, renewed, self._take_changes, self._calls_again, full=full
            )
            self._again = self._again or facts.again
            found = found or bool(facts.newcomers) or any(s.grown for s in facts.seen.values())
            actions = reconcile(known, facts.seen, orphans, final=final)
            self._carry_out(actions, facts.newcomers, from_end=from_end)
            self._first = full = False
            if not self._again:
                break
        followed = (file.path for file in self.files.values())
        if every:
            self._closed = self._unreadable.add_directories(self._finder.closed())
        self._unreadable.keep_only(facts.paths.union(followed, self._closed))
        self._note_rotated_and_expire()
        waiting = any(file.stage is Stage.WAITING for file in self.files.values())
        self.undecided = waiting or bool(self._orphans)
        self.collect()
        self._events.surveyed(full=every, found=found)

    def _take_changes(self) -> Changes:
        self.collect()
        changes, self._changes = self._changes, Changes()
        return changes

    def _calls_again(self) -> bool:
        self.collect()
        return self._changes.call_for_survey

    def _known(self, file: FollowedFile) -> Known:
        since = max(file.changed_at, file.rotated_at or 0.0)
        return Known(
            key=file.progress.key,
            path=file.path,
            matched=file.matched,
            stage=file.stage,
            offset=file.progress.offset,
            unread=file.unread,
            idle_s=self._clock() - since if file.idle else 0.0,
        )

    def _carry_out(
        self, actions: list[Action], newcomers: dict[FileId, FollowedFile], *, from_end: bool
    ) -> None:
        """Do what `reconcile` decided, in its order."""
        resumed: list[FollowedFile] = []
        new: list[FollowedFile] = []
        for action in actions:
            if isinstance(action, Lost):
                path, orphan = self._orphans.pop(action.key)
                self._lost(path, orphan.unread)
                continue
            if isinstance(action, Recovered):
                self._orphans.pop(action.key, None)
                continue
            newcomer = newcomers.get(action.file)
            file = newcomer or self.files[action.file]
            try:
                self._do(action, file, from_end=from_end and newcomer is not None)
            except ContentChanged:
                file.changed = self._again = True
            except FileMoved:
                self._again = True
            except OSError as error:
                self.failed(file, error)
            else:
                if newcomer is not None:
                    (resumed if isinstance(action, Resume) else new).append(file)
                continue
            if newcomer is not None:  # met anew by the next survey
                self._watcher.unwatch_file(file.file_id)
                file.close()
        self._follow_new(resumed, new)

    def _do(self, action: Action, file: FollowedFile, *, from_end: bool) -> None:
        progress = file.progress
        match action:
            case Begin():
                if from_end:
                    file.skip_all()
                    self._store.note(progress.position())
                elif progress.offset:
                    self._opened(file)
                    progress.finished_size = progress.end_sha256 = None
                    file.start_at(0)
                file.stage, file.origin = Stage.READING, None
                file.ready = progress.finished_size is None
            case Resume():
                self._opened(file)
                self._resume(file, action.key)
                file.stage, file.origin = Stage.READING, None
            case Wait():
                file.stage, file.origin = Stage.WAITING, action.origin
            case Copied():
                self._opened(file)
                self._start_behind(file, action)
            case FollowOn():
                file.stage, file.origin, file.ready = Stage.READING, None, True
            case Renamed():
                if action.path != file.path:
                    first = not file.rotated_name
                    (self._log.info if first else self._log.debug)(
                        "renamed", path=printable(action.path), was=progress.path
                    )
                    file.moved_to(action.path)
                file.matched = action.matched
            case Truncated():
                self._log.info("truncated", path=progress.path, offset=progress.offset)
                progress.truncated = self._again = True
                unread = file.unread_when_intact
                if (fresh := self._surveyor.renewed(file)) is not None:
                    self._renewed[file.file_id] = fresh
                self._retire(file, unread)
            case Retired():
                self._log.info(action.why, path=progress.path)
                self._retire(file, file.unread)
            case Lost() | Recovered():
                raise AssertionError("these are of no file")

    def _opened(self, file: FollowedFile) -> None:
        if file.content is None:
            file.reopen(self._disk)

    def _resume(self, file: FollowedFile, key: str) -> None:
        point = self._store.get(key)
        content = file.content
        assert point is not None
        assert content is not None
        begin = content.pread(PREFIX_BYTES, 0)
        progress = Progress.resume(key, point, file.path, file.file_id, begin)
        finished = file.compressed and point.finished_size == file.size
        if not finished:
            progress.move_to(content, point.offset)
        self._store.pop(key)
        followed = file.file_id in self.files
        if followed:
            self.schedule.remove(file)  # it may turn out to be of another log
        file.adopt_progress(progress, point.family)
        if followed:
            self.schedule.add(file)
        if finished:
            file.ready = False
            file.close()
        if point.gone is not None or point.path != file.progress.path:
            self._store.note(file.progress.position())

    def _start_behind(self, file: FollowedFile, action: Copied) -> None:
        file.start_at(action.through, action.part, action.ahead)
        file.origin = action.origin if action.whole else None
        file.stage = Stage.COPY if action.whole else Stage.READING
        file.ready = not action.whole
        if action.whole and file.compressed:
            file.finish()
        self._store.note(file.progress.position())
        origin = self._origin(action.origin)
        if origin is not None:
            self._log.info(
                "copy of a file that was read, reading only the rest",
                path=file.progress.path,
                origin=origin,
                from_offset=action.through,
            )
        if action.whole:
            file.close()

    def _origin(self, key: str) -> str | None:
        """Note that a content has been found copied; returns where it was."""
        if (point := self._store.get(key)) is not None:
            if not point.copied:
                self._store.put(key, msgspec.structs.replace(point, copied=True))
            return point.path
        return next((f.progress.path for f in self.files.values() if f.progress.key == key), None)

    def _follow_new(self, resumed: list[FollowedFile], new: list[FollowedFile]) -> None:
        """Follow these files from now on, the older ones before the newer ones."""
        # Those met before came before those that were not, whatever their times.
        resumed.sort(key=lambda file: file.progress.serial)
        log = self._log.debug if self._first else self._log.info
        for file in resumed + new:
            log("found", path=file.progress.path, offset=file.progress.offset, size=file.size)
        # Those of which nothing was read yet are as new: the others may be older than they.
        again = [f for name in {f.family for f in new} for f in self.schedule.take_unread(name)]
        for file in resumed + sorted(new + again, key=lambda file: file.birth):
            self.files[file.file_id] = file
            self.schedule.add(file)

    def _note_rotated_and_expire(self) -> None:
        """Note what was rotated and what may be read; forget what is too old."""
        now = self._clock()
        for file in self.files.values():
            if not self.schedule.is_rotated(file):
                file.rotated_at = None
            elif file.rotated_at is None:
                file.rotated_at = now
            if not file.idle:
                self.schedule.wake(file)
        for file in list(self.schedule.expendable()):
            self._retire(file, 0)
        if now >= self._next_expiry:
            self._next_expiry = now + _EXPIRE_EVERY_S
            self._store.expire(self._wall_clock())
            self._surveyor.forget_failures()

    def _retire(self, file: FollowedFile, unread: int) -> None:
        """Follow it no longer, and remember how far it was read; `unread` bytes were not."""
        progress = file.progress
        if unread and file.stage is Stage.READING:
            orphan = Orphan(unread, file.log, progress.offset, progress.begin)
            self._orphans[progress.key] = (progress.path, orphan)
        recent = progress.recent
        if file.file_id not in self._renewed:
            self._watcher.unwatch_file(file.file_id)
        file.close()
        if progress.offset:
            self._store.put(progress.key, progress.checkpoint(gone=self._wall_clock()), recent)
        del self.files[file.file_id]
        self.schedule.remove(file)

    def settle_deleted(self) -> bool:
        """See which files have been deleted; whether something is unread in any.

        Blocks on the disk.
        """
        for file in self.files.values():
            if not file.idle:
                with suppress(OSError):
                    file.look()
        if self.deleted_unread():
            self.survey(full=False)
        return bool(self.deleted_unread())

    def deleted_unread(self) -> list[FollowedFile]:
        """Open files that no name leads to, of which something is unread; the older ones first."""
        return [
            file
            for file in self.files.values()
            if file.deleted and file.content is not None and file.stage is Stage.READING
            and file.unread and not file.changed
        ]  # fmt: skip

    def close(self) -> None:
        """Close every file; what is unread in deleted ones is lost."""
        copied = {file.origin for file in self.files.values()}
        for file in self.files.values():
            unread = file.unread_when_intact if file.deleted and file.content is not None else 0
            if unread and file.stage is Stage.READING and file.progress.key not in copied:
                self._lost(file.progress.path, unread)
            file.close()
        for file in self._renewed.values():
            file.close()
