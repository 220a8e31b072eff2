"""Finds the files of a source and opens those that are new, however much is renamed meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from siemrelay.sources.file.checkpoints import CheckpointStore
from siemrelay.sources.file.disk import Disk, FileId, OpenFile
from siemrelay.sources.file.finder import Finder, Found, Listing, Unsettled
from siemrelay.sources.file.fingerprint import PREFIX_BYTES, Progress
from siemrelay.sources.file.reader import FollowedFile
from siemrelay.sources.file.schedule import Schedule
from siemrelay.sources.file.warnings import UnreadableFiles
from siemrelay.sources.file.watcher import Changes, Watching
from siemrelay.wire.compression import compression_of
from siemrelay.wire.framing.contract import Framing

# How often to look again while files are being renamed, and the pause before. A rotation takes
# milliseconds; names that change for longer than this are looked at again a moment later.
_LOOKS: Final = 20
_LOOK_PAUSE_S: Final = 0.001


class Discovery:
    """Finds what matches, watches it and opens it; compares nothing. Blocks on the disk."""

    def __init__(
        self, finder: Finder, watcher: Watching, disk: Disk, store: CheckpointStore,
        schedule: Schedule, unreadable: UnreadableFiles, *, framing: Framing,
        clock: Callable[[], float], wall_clock: Callable[[], float],
        pause: Callable[[float], None],
    ) -> None:  # fmt: skip
        self._finder, self._watcher, self._disk, self._store = finder, watcher, disk, store
        self._schedule, self._unreadable, self._framing = schedule, unreadable, framing
        self._clock, self._wall_clock, self._pause = clock, wall_clock, pause
        self._moved_before: dict[str, str] = {}
        self._unsettled: frozenset[Unsettled] = frozenset()
        self._directories: set[str] = set()
        self._serial = max(time.time_ns(), store.latest_serial())  # a clock may be set back
        self._left_alone: dict[FileId, tuple[str, int]] = {}
        """Path and size of files that need not be opened: strays, and unsupported compressions."""

    def look(
        self, files: Mapping[FileId, FollowedFile], newcomers: dict[FileId, FollowedFile],
        take_changes: Callable[[], Changes], calls_again: Callable[[], bool], *, full: bool,
    ) -> Listing:  # fmt: skip
        """Find the files, again until nothing moves meanwhile, and add new ones to `newcomers`.

        Listing a directory is no snapshot: of files that are renamed just then some may be
        missed, and newer ones would be read before them. What was opened stays open whatever it
        is called afterwards.

        `files`: those that are followed. `take_changes`: the changes reported since it was called
        last; `calls_again`: whether there are any that call for another look. `full`: look at
        every file, also where no event says that it changed.
        """
        wanted = self._store.inodes()
        wanted.update(file_id[1] for file_id, file in files.items() if file.content is None)
        moved: dict[str, str] = {}
        for look in range(_LOOKS):
            if look > 1:
                self._pause(_LOOK_PAUSE_S)
            changes = take_changes()
            full = full or changes.everything or not self._watcher.active
            moved |= changes.moved
            # Once more for those of the last time: the news of their next rename may be under way.
            listing = self._finder.find(
                changed=None if full else changes.entries,
                moved=(renamed := self._moved_before | moved),
                wanted=wanted,
            )
            for directory in self._finder.directories:
                self._watcher.watch_directory(directory)
            opened = len(newcomers)
            missed = self._open_new(files, listing, newcomers, renamed)
            # Without events only another look tells what took the names of those meanwhile.
            missed = missed or (not self._watcher.active and len(newcomers) > opened)
            # What happened in a directory before it was watched is not reported.
            unwatched = self._directories != self._finder.directories
            self._directories = self._finder.directories
            moving = not listing.unsettled <= self._unsettled
            self._unsettled = listing.unsettled
            if not (missed or unwatched or moving or calls_again()):
                break
            full = False
        self._moved_before = moved
        self._watcher.forget_moved()
        return listing

    def renewed(self, file: FollowedFile) -> FollowedFile | None:
        """The same open file as a new one, since its content is another; None if it is closed.

        It is not opened again by its name, which it may have lost.
        """
        if file.content is None:
            return None
        opened, file.content = file.content.file, None
        try:
            fresh = self._newcomer(Found(file.path, opened.status(), file.matched), opened)
        except OSError:
            opened.close()
            return None
        if fresh is not None:
            fresh.deleted = file.deleted
        return fresh

    def dismiss(self, file: FollowedFile) -> None:
        """Close a new file that is not to be followed; the next survey may find it again."""
        self._watcher.unwatch_file(file.file_id)
        file.close()

    def leave_alone(self, stray: FollowedFile) -> None:
        """As `dismiss`, and do not open it again while it has this name."""
        self._left_alone[stray.file_id] = (stray.path, 0)
        self.dismiss(stray)

    def forget_failures(self) -> None:
        """Look anew at files that were left alone."""
        self._left_alone.clear()

    def _open_new(
        self, files: Mapping[FileId, FollowedFile], listing: Listing,
        newcomers: dict[FileId, FollowedFile], renamed: Mapping[str, str],
    ) -> bool:  # fmt: skip
        """Open what is not followed yet; whether one has moved before it could be opened."""
        missed = False
        held = sum(file.content is not None for file in files.values()) + len(newcomers)
        for file_id, found in (listing.found | listing.strays).items():
            if file_id in files or file_id in newcomers:
                continue
            stray = file_id in listing.strays
            if self._left_alone.get(file_id) == (found.path, 0 if stray else found.status.size):
                continue
            try:
                file = self._disk.open(found.path)
            except FileNotFoundError:
                missed = True
                continue
            except OSError as error:
                self._unreadable.add(found.path, error)
                continue
            status = file.status()
            if status.file_id != file_id:
                missed = True
                # Whatever it is, it matches, and is held now.
                if stray or status.file_id in files or status.file_id in newcomers:
                    file.close()
                    continue
            try:
                followed = self._newcomer(found._replace(status=status), file)
                if followed is not None and found.path in renamed:
                    followed.joins(renamed[found.path])
            except OSError as error:
                file.close()
                self._unreadable.add(found.path, error)
                continue
            if followed is not None:
                newcomers[status.file_id] = followed
                held += 1
                if not self._schedule.may_hold(held):
                    followed.close()
                    held -= 1
        return missed

    def _newcomer(self, found: Found, file: OpenFile) -> FollowedFile | None:
        """The open file as a new one to follow; None, and closed, if it cannot be expanded."""
        begin = file.pread(PREFIX_BYTES, 0)
        compression = compression_of(begin, found.path)
        if compression is not None and compression.expander is None:
            self._unreadable.add_unsupported(found.path, compression.name)
            self._left_alone[found.file_id] = (found.path, found.status.size)
            file.close()
            return None
        self._serial += 1
        progress = Progress(
            found.path, found.file_id, self._serial, compressed=compression is not None
        )
        followed = FollowedFile(
            found.path, progress, framing=self._framing,
            compression=compression, clock=self._clock, wall_clock=self._wall_clock,
        )  # fmt: skip
        followed.adopt(file)
        followed.matched = found.matched
        # Watched first and looked at afterwards: what is written in between is not missed.
        self._watcher.watch_file(file, found.file_id)
        followed.look()
        return followed
