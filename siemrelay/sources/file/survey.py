"""Gathers the facts about a source's files: what is there, and what its content proves."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from siemrelay.sources.file.checkpoints import CheckpointStore
from siemrelay.sources.file.compression import compression_of
from siemrelay.sources.file.content import CompressedContent
from siemrelay.sources.file.copies import (
    OriginChanged,
    checkpoint_of,
    compare,
    may_be_a_copy,
    origins_of,
)
from siemrelay.sources.file.disk import Disk, FileId, OpenFile, Status
from siemrelay.sources.file.finder import Finder, Found, Picture, Unsettled
from siemrelay.sources.file.fingerprint import PREFIX_BYTES, ContentChanged, Progress
from siemrelay.sources.file.reader import FileMoved, FollowedFile
from siemrelay.sources.file.reconcile import Seen, Stage
from siemrelay.sources.file.schedule import Schedule
from siemrelay.sources.file.warnings import UnreadableFiles
from siemrelay.sources.file.watcher import Changes, Watching
from siemrelay.wire.framing.contract import Framing

# How often to look again while files are being renamed, and the pause before. A rotation takes
# milliseconds; names that change for longer than this are looked at again a moment later.
_LOOKS: Final = 20
_LOOK_PAUSE_S: Final = 0.001


class Facts(msgspec.Struct):
    """What one survey found."""

    paths: set[str]
    """Of the files that match, or were seen moving out of reach."""
    seen: dict[FileId, Seen]
    newcomers: dict[FileId, FollowedFile]
    """The open files among them that are not followed yet."""
    again: bool
    """Whether something moved meanwhile, so that another survey should follow at once."""


class Surveyor:
    """Looks at the disk for one source; decides nothing. Blocks on the disk."""

    def __init__(
        self, finder: Finder, watcher: Watching, disk: Disk, store: CheckpointStore,
        schedule: Schedule, unreadable: UnreadableFiles, log: Any, *, framing: Framing,
        clock: Callable[[], float], wall_clock: Callable[[], float],
        pause: Callable[[float], None],
    ) -> None:  # fmt: skip
        self._finder, self._watcher, self._disk, self._store = finder, watcher, disk, store
        self._schedule, self._unreadable, self._log = schedule, unreadable, log
        self._framing, self._pause = framing, pause
        self._clock, self._wall_clock = clock, wall_clock
        self._moved_before: dict[str, str] = {}
        self._unsettled: frozenset[Unsettled] = frozenset()
        self._directories: set[str] = set()
        self._again = False
        self._truncated: list[FollowedFile] = []
        self._serial = max(time.time_ns(), store.latest_serial())  # a clock may be set back
        self._left_alone: dict[FileId, tuple[str, int]] = {}
        """Files that are of no concern: found by an inode that is not theirs, or unsupported."""

    def survey(
        self, files: Mapping[FileId, FollowedFile], newcomers: dict[FileId, FollowedFile],
        take_changes: Callable[[], Changes], calls_again: Callable[[], bool], *, full: bool,
    ) -> Facts:  # fmt: skip
        """Find, open and examine every file.

        `files`: those that are followed; `newcomers`: new ones that are open already.
        `take_changes`: the changes reported since it was called
        last; `calls_again`: whether there are any that call for another look. `full`: look at
        every file, also where no event says that it changed.
        """
        self._again = False
        picture = self._look(files, newcomers, take_changes, calls_again, full=full)
        seen: dict[FileId, Seen] = {}
        of_log: defaultdict[str, list[FollowedFile]] = defaultdict(list)
        for file in files.values():
            of_log[file.log].append(file)
        for file in newcomers.values():
            self._look_again(file, picture)
            of_log[file.log].append(file)
        for file_id, file in files.items():
            if (sight := self._examine(file, of_log[file.log], picture)) is not None:
                seen[file_id] = sight
        for file_id, file in list(newcomers.items()):
            if (sight := self._meet(file, of_log[file.log], picture)) is None:
                del newcomers[file_id]
                of_log[file.log].remove(file)
            else:
                seen[file_id] = sight
        for file in self._truncated:  # not before all were compared by the same facts
            file.changed = self._again = True
        self._truncated.clear()
        paths = {file.path for file in picture.found.values()}
        return Facts(paths, seen, newcomers, self._again)

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

    def forget_failures(self) -> None:
        """Look anew at files that were left alone."""
        self._left_alone.clear()

    def _look(
        self, files: Mapping[FileId, FollowedFile], newcomers: dict[FileId, FollowedFile],
        take_changes: Callable[[], Changes], calls_again: Callable[[], bool], *, full: bool,
    ) -> Picture:  # fmt: skip
        """Find the files, again until nothing moves meanwhile, and open those that are new.

        Listing a directory is no snapshot: of files that are renamed just then some may be
        missed, and newer ones would be read before them. What was opened stays open whatever it
        is called afterwards.
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
            picture = self._finder.find(
                changed=None if full else changes.entries,
                moved=(renamed := self._moved_before | moved),
                wanted=wanted,
            )
            for directory in self._finder.directories:
                self._watcher.watch_directory(directory)
            opened = len(newcomers)
            missed = self._open_new(files, picture, newcomers, renamed)
            # Without events only another look tells what took the names of those meanwhile.
            missed = missed or (not self._watcher.active and len(newcomers) > opened)
            # What happened in a directory before it was watched is not reported.
            unwatched = self._directories != self._finder.directories
            self._directories = self._finder.directories
            moving = not picture.unsettled <= self._unsettled
            self._unsettled = picture.unsettled
            if not (missed or unwatched or moving or calls_again()):
                break
            full = False
        self._moved_before = moved
        self._watcher.forget_moved()
        return picture

    def _open_new(
        self, files: Mapping[FileId, FollowedFile], picture: Picture,
        newcomers: dict[FileId, FollowedFile], renamed: Mapping[str, str],
    ) -> bool:  # fmt: skip
        """Open what is not followed yet; whether one has moved before it could be opened."""
        missed = False
        held = sum(file.content is not None for file in files.values()) + len(newcomers)
        for file_id, found in (picture.found | picture.strays).items():
            if file_id in files or file_id in newcomers:
                continue
            stray = file_id in picture.strays
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

    def _examine(
        self, file: FollowedFile, of_log: Sequence[FollowedFile], picture: Picture
    ) -> Seen | None:
        """The facts about a file that is followed; None if nothing leads to it any more."""
        found = picture.found.get(file.file_id)
        path, matched = file.path, file.matched
        if file.content is not None:
            status = file.content.file.status()
            if found is not None:
                path, matched = found.path, found.matched
            else:
                matched = False
                if status.links and (now_at := file.content.file.path()) is not None:
                    path, matched = now_at, self._finder.globs.matches(now_at)
            changed = self._lost_content(file, status)
        else:
            found = found or picture.strays.get(file.file_id)
            if found is None:
                return None
            path, matched, status = found.path, found.matched, found.status
            changed = self._is_another(file, found)
        if status.links == 0 and not file.deleted:
            self._log.info("deleted", path=file.progress.path)
        file.changed = changed
        if not changed or file.content is not None:
            try:
                file.saw(status)
                if file.is_racy and not file.compressed:
                    file.ready = True
            except OSError as error:
                self._failed(file, error)
        point = self._store.get(file.resumes) if file.resumes else None
        seen = Seen(
            path=path,
            matched=matched,
            deleted=file.deleted,
            changed=file.changed,
            checkpoint=file.resumes if point is not None else None,
            checkpoint_offset=point.offset if point is not None else 0,
            grown=file.stamp != file.surveyed,
            log=file.log,
            begin=file.progress.begin,
            copy_by_name=may_be_a_copy(file),
            quiet_s=self._quiet_s(file),
        )
        file.surveyed = file.stamp
        if file.changed or file.stage is Stage.READING:
            return seen
        if file.stage is not Stage.WAITING and not seen.grown:
            return seen
        return self._compared(file, seen, of_log)

    def _lost_content(self, file: FollowedFile, status: Status) -> bool:
        """Whether an open file was truncated; one that has grown again is found out by a read."""
        if isinstance(file.content, CompressedContent):
            return file.changed or status.size < file.content.consumed
        return file.changed or status.size < file.progress.offset

    def _is_another(self, file: FollowedFile, found: Found) -> bool:
        """Whether a closed file's inode was given to another one, or it was truncated."""
        stamp = (found.status.size, found.status.mtime_ns)
        if found.path == file.path and file.stamp in (None, stamp) and not file.is_racy:
            return False
        try:
            opened = self._disk.open(found.path)
        except OSError:
            return False  # the next look, or the read, has it
        try:
            if opened.status().file_id != file.file_id:
                self._again = True
                return False
            return not file.holds(opened, found.path)
        except OSError as error:
            self._unreadable.add(found.path, error)
            return False
        finally:
            opened.close()

    def _compared(self, file: FollowedFile, seen: Seen, of_log: Sequence[FollowedFile]) -> Seen:
        """Add what is known of a file that may be a copy."""
        origins = origins_of(file, of_log, self._store)
        if not origins:
            return seen
        try:
            if file.content is None:
                file.reopen(self._disk)
            extent, likenesses = compare(file, origins, self._disk)
        except OriginChanged as error:
            self._truncated.append(error.file)
            return msgspec.structs.replace(seen, postponed=True)
        except (ContentChanged, FileMoved):
            self._again = True
            return msgspec.structs.replace(seen, postponed=True)
        except OSError as error:
            self._failed(file, error)
            return seen
        return msgspec.structs.replace(
            seen,
            length=extent.length,
            complete=extent.complete,
            likenesses=likenesses,
            differs=bool(file.origin) and file.origin not in {like.key for like in likenesses},
        )

    def _look_again(self, file: FollowedFile, picture: Picture) -> None:
        """See what has become of a new file since it was opened."""
        file.look()
        found = picture.found.get(file.file_id)
        path = found.path if found is not None else file.path
        if found is None and file.content is not None and not file.deleted:
            path = file.content.file.path() or path
            file.matched = self._finder.globs.matches(path)
        if path != file.path:
            file.moved_to(path)

    def _meet(
        self, file: FollowedFile, of_log: Sequence[FollowedFile], picture: Picture
    ) -> Seen | None:
        """The facts about a file that is new; None if it is no concern of ours."""
        try:
            if file.content is None:
                file.reopen(self._disk)
            key, point = checkpoint_of(file, self._store) or (None, None)
            file.resumes = key
        except (ContentChanged, FileMoved):
            self._again = True
            file.close()
            return None
        except OSError as error:
            self._unreadable.add(file.path, error)
            file.close()
            return None
        if key is None and not file.matched and file.file_id in picture.strays:
            self._left_alone[file.file_id] = (file.path, 0)
            self._watcher.unwatch_file(file.file_id)
            file.close()
            return None
        seen = Seen(
            key=file.progress.key,
            path=file.path,
            matched=file.matched,
            deleted=file.deleted,
            changed=file.changed,
            checkpoint=key,
            checkpoint_offset=point.offset if point is not None else 0,
            log=file.log,
            begin=file.progress.begin,
            copy_by_name=may_be_a_copy(file),
            quiet_s=self._quiet_s(file),
        )
        file.surveyed = file.stamp
        # A compressed file that was read to its end is proven by all of its content.
        if not seen.copy_by_name or (point is not None and point.finished_size is not None):
            return seen
        return self._compared(file, seen, of_log)

    def _quiet_s(self, file: FollowedFile) -> float:
        # By its time of last write, too: a relay that starts need not wait for what is long whole.
        return max(self._clock() - file.changed_at, self._wall_clock() - file.mtime_s)

    def _failed(self, file: FollowedFile, error: OSError) -> None:
        self._unreadable.add(file.path, error)
        file.try_later()
