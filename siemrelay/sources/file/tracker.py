"""When to look at a source's files, and what events and reads say about them in between."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from siemrelay.sources.file.checkpoints import CheckpointStore
from siemrelay.sources.file.discovery import Discovery
from siemrelay.sources.file.disk import Disk
from siemrelay.sources.file.finder import Finder
from siemrelay.sources.file.followed_files import FollowedFiles
from siemrelay.sources.file.reader import FollowedFile
from siemrelay.sources.file.reconcile import Stage, reconcile
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
        self._finder, self._watcher, self._store = finder, watcher, store
        self._schedule, self._unreadable = schedule, unreadable
        self._clock, self._wall_clock = clock, wall_clock
        self._discovery = Discovery(
            finder, watcher, disk, store, schedule, unreadable,
            framing=framing, clock=clock, wall_clock=wall_clock, pause=pause,
        )  # fmt: skip
        self._surveyor = Surveyor(
            self._discovery, finder.globs, disk, store, unreadable, log,
            clock=clock, wall_clock=wall_clock,
        )  # fmt: skip
        self._followed = FollowedFiles(
            self._discovery, watcher, disk, store, schedule, unreadable, lost, log,
            clock=clock, wall_clock=wall_clock,
        )  # fmt: skip
        self.files = self._followed.by_id
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
        changes = self._changes
        return self._again or changes.everything or bool(changes.entries)

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
                self._schedule.wake(file)
        if changes.everything or changes.entries:
            self._changes.entries |= changes.entries
            self._changes.moved |= changes.moved
            self._changes.everything |= changes.everything

    def next_read(self, family_name: str) -> tuple[FollowedFile, bool] | None:
        """As `Schedule.next_read`; a file that was truncated is left for the next survey."""
        if not self._collected:
            self.collect()
        self._collected = False
        turn = self._schedule.next_read(family_name, survey_due=self.survey_due)
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

    def failed(self, file: FollowedFile, error: OSError) -> None:
        """A file could not be read: it is tried again when it changes and at every survey."""
        self._followed.failed(file, error)

    def survey(self, *, full: bool, from_end: bool = False, final: bool = False) -> None:
        """Look at the disk and act on every change. Blocks on the disk.

        `full`: look at every file, also where no event says that it changed. `from_end`: skip
        what is in new files. `final`: decide at once what may be a copy.
        """
        found, every = False, full
        for _ in range(_ROUNDS):
            known, orphans = self._followed.known(), self._followed.orphans()
            facts = self._surveyor.survey(
                self.files, self._followed.take_renewed(), self._take_changes, self._calls_again,
                full=full,
            )  # fmt: skip
            found = found or bool(facts.newcomers) or any(s.grown for s in facts.seen.values())
            actions = reconcile(known, facts.seen, orphans, final=final)
            again = self._followed.carry_out(
                actions, facts.newcomers, from_end=from_end, quiet=self._first
            )
            self._first = full = False
            self._again = facts.again or again
            if not self._again:
                break
        followed = (file.path for file in self.files.values())
        if every:
            self._closed = self._unreadable.add_directories(self._finder.closed())
        self._unreadable.keep_only(facts.paths.union(followed, self._closed))
        self._followed.note_rotated()
        self._expire()
        self.undecided = self._followed.undecided
        self.collect()
        self._events.surveyed(full=every, found=found)

    def _take_changes(self) -> Changes:
        self.collect()
        changes, self._changes = self._changes, Changes()
        return changes

    def _calls_again(self) -> bool:
        self.collect()
        return self._changes.call_for_survey

    def _expire(self) -> None:
        """Forget what is too old."""
        if (now := self._clock()) >= self._next_expiry:
            self._next_expiry = now + _EXPIRE_EVERY_S
            self._store.expire(self._wall_clock())
            self._discovery.forget_failures()

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
        self._followed.close()
