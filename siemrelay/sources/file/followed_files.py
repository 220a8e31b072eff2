"""The files that a source follows, and those that left unread: carries out what is decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from siemrelay.sources.file.checkpoints import CheckpointStore, printable
from siemrelay.sources.file.discovery import Discovery
from siemrelay.sources.file.disk import Disk, FileId
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
)
from siemrelay.sources.file.schedule import Schedule
from siemrelay.sources.file.warnings import UnreadableFiles
from siemrelay.sources.file.watcher import Watching


class FollowedFiles:
    """The only place where files begin to be followed, change what they are, and are dropped.

    Blocks on the disk.
    """

    def __init__(
        self, discovery: Discovery, watcher: Watching, disk: Disk, store: CheckpointStore,
        schedule: Schedule, unreadable: UnreadableFiles, lost: Callable[[str, int], None],
        log: Any, *, clock: Callable[[], float], wall_clock: Callable[[], float],
    ) -> None:  # fmt: skip
        """`lost` is called with the path and the number of bytes that can no longer be read."""
        self._discovery, self._watcher, self._disk = discovery, watcher, disk
        self._store, self._schedule, self._unreadable = store, schedule, unreadable
        self._lost, self._log, self._clock, self._wall_clock = lost, log, clock, wall_clock
        self.by_id: dict[FileId, FollowedFile] = {}
        self._orphans: dict[str, tuple[str, Orphan]] = {}
        """By the key of their content: contents that left unread, with their last path."""
        self._renewed: dict[FileId, FollowedFile] = {}
        self._again = False

    @property
    def undecided(self) -> bool:
        """Whether there are files that may be copies, or contents whose copy may turn up."""
        waiting = any(file.stage is Stage.WAITING for file in self.by_id.values())
        return waiting or bool(self._orphans)

    def known(self) -> dict[FileId, Known]:
        """Every file as it is now, for `reconcile`."""
        return {file_id: self._known(file) for file_id, file in self.by_id.items()}

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

    def orphans(self) -> dict[str, Orphan]:
        """Contents of which bytes were unread when their file left, by the key of the content."""
        return {key: orphan for key, (_, orphan) in self._orphans.items()}

    def take_renewed(self) -> dict[FileId, FollowedFile]:
        """Open files whose content was truncated since the last call: new ones to the caller."""
        renewed, self._renewed = self._renewed, {}
        return renewed

    def failed(self, file: FollowedFile, error: OSError) -> None:
        """A file could not be read: it is tried again when it changes and at every survey."""
        self._unreadable.add(file.path, error)
        file.try_later()

    def carry_out(
        self, actions: list[Action], newcomers: Mapping[FileId, FollowedFile], *, from_end: bool,
        quiet: bool,
    ) -> bool:  # fmt: skip
        """Do what `reconcile` decided, in its order; whether another survey is to follow at once.

        `from_end`: skip what is in new files. `quiet`: new files are no news.
        """
        self._again = False
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
            file = newcomer or self.by_id[action.file]
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
            if newcomer is not None:  # found as new by the next survey
                self._discovery.dismiss(newcomer)
        self._follow(resumed, new, quiet=quiet)
        return self._again

    def _do(self, action: Action, file: FollowedFile, *, from_end: bool) -> None:
        match action:
            case Begin():
                self._begin(file, from_end=from_end)
            case Resume():
                self._resume(file, action.key)
            case Wait():
                file.stage, file.origin = Stage.WAITING, action.origin
            case Copied():
                self._start_behind(file, action)
            case FollowOn():
                file.stage, file.origin, file.ready = Stage.READING, None, True
            case Renamed():
                self._rename(file, action)
            case Truncated():
                self._renew(file)
            case Retired():
                self._log.info(action.why, path=file.progress.path)
                self.retire(file, file.unread)
            case Lost() | Recovered():
                raise AssertionError("these are of no file")

    def _begin(self, file: FollowedFile, *, from_end: bool) -> None:
        progress = file.progress
        if from_end:
            file.skip_all()
            self._store.note(progress.position())
        elif progress.offset:
            self._opened(file)
            progress.finished_size = progress.end_sha256 = None
            file.start_at(0)
        file.stage, file.origin = Stage.READING, None
        file.ready = progress.finished_size is None

    def _resume(self, file: FollowedFile, key: str) -> None:
        self._opened(file)
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
        followed = file.file_id in self.by_id
        if followed:
            self._schedule.remove(file)  # it may turn out to be of another log
        file.adopt_progress(progress, point.family)
        if followed:
            self._schedule.add(file)
        if finished:
            file.ready = False
            file.close()
        if point.gone is not None or point.path != file.progress.path:
            self._store.note(file.progress.position())
        file.stage, file.origin = Stage.READING, None

    def _start_behind(self, file: FollowedFile, action: Copied) -> None:
        self._opened(file)
        file.start_at(action.through, action.part, action.ahead)
        file.origin = action.origin if action.whole else None
        file.stage = Stage.COPY if action.whole else Stage.READING
        file.ready = not action.whole
        if action.whole and file.compressed:
            file.finish()
        self._store.note(file.progress.position())
        origin = self._note_copied(action.origin)
        if origin is not None:
            self._log.info(
                "copy of a file that was read, reading only the rest",
                path=file.progress.path,
                origin=origin,
                from_offset=action.through,
            )
        if action.whole:
            file.close()

    def _note_copied(self, key: str) -> str | None:
        """Note that a content has been found copied; returns where it was."""
        if (point := self._store.get(key)) is not None:
            if not point.copied:
                self._store.put(key, msgspec.structs.replace(point, copied=True))
            return point.path
        files = self.by_id.values()
        return next((file.progress.path for file in files if file.progress.key == key), None)

    def _rename(self, file: FollowedFile, action: Renamed) -> None:
        if action.path != file.path:
            log = self._log.debug if file.rotated_name else self._log.info
            log("file renamed", path=printable(action.path), was=file.progress.path)
            file.moved_to(action.path)
        file.matched = action.matched

    def _renew(self, file: FollowedFile) -> None:
        """Its content is another: drop it; the next survey finds it as a new file."""
        progress = file.progress
        self._log.info("file truncated", path=progress.path, offset=progress.offset)
        progress.truncated = self._again = True
        unread = file.unread_when_intact
        if (fresh := self._discovery.renewed(file)) is not None:
            self._renewed[file.file_id] = fresh
        self.retire(file, unread)

    def _opened(self, file: FollowedFile) -> None:
        if file.content is None:
            file.reopen(self._disk)

    def _follow(self, resumed: list[FollowedFile], new: list[FollowedFile], *, quiet: bool) -> None:
        """Follow these files from now on, the older ones before the newer ones."""
        # Files seen before are older than those that were not, whatever their times.
        resumed.sort(key=lambda file: file.progress.serial)
        log = self._log.debug if quiet else self._log.info
        for file in resumed + new:
            log("file found", path=file.progress.path, offset=file.progress.offset, size=file.size)
        # Those of which nothing was read yet are as new: the others may be older than they.
        again = [f for name in {f.family for f in new} for f in self._schedule.take_unread(name)]
        found = resumed + sorted(new + again, key=lambda file: file.birth)
        # But none is younger than the log itself: its inode, and what was read of it, may be that
        # of a deleted generation with the same header.
        for file in sorted(found, key=lambda file: file.is_log):
            self.by_id[file.file_id] = file
            self._schedule.add(file)

    def note_rotated(self) -> None:
        """Note what was rotated and what may be read; drop what may no longer be open."""
        now = self._clock()
        for file in self.by_id.values():
            if not self._schedule.is_rotated(file):
                file.rotated_at = None
            elif file.rotated_at is None:
                file.rotated_at = now
            if not file.idle:
                self._schedule.wake(file)
        for file in list(self._schedule.expendable()):
            self.retire(file, 0)

    def retire(self, file: FollowedFile, unread: int) -> None:
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
        del self.by_id[file.file_id]
        self._schedule.remove(file)

    def close(self) -> None:
        """Close every file; what is unread in deleted ones is lost."""
        copied = {file.origin for file in self.by_id.values()}
        for file in self.by_id.values():
            unread = file.unread_when_intact if file.deleted and file.content is not None else 0
            if unread and file.stage is Stage.READING and file.progress.key not in copied:
                self._lost(file.progress.path, unread)
            file.close()
        for file in self._renewed.values():
            file.close()
