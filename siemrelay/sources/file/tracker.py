"""The files of one source: gathers what there is, and carries out what `reconcile` decides."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

import msgspec

from siemrelay.sources.file.checkpoints import CheckpointStore, FileCheckpoint, printable
from siemrelay.sources.file.compression import compression_of
from siemrelay.sources.file.content import CompressedContent
from siemrelay.sources.file.copies import compare, may_be_a_copy, origins_of
from siemrelay.sources.file.disk import Disk, FileId, OpenFile, Status
from siemrelay.sources.file.finder import Finder, Found, Picture
from siemrelay.sources.file.fingerprint import PREFIX_BYTES, Progress, begins_as, continues_at
from siemrelay.sources.file.reader import ContentChanged, FileMoved, FollowedFile, Stage
from siemrelay.sources.file.reconcile import (
    Action,
    Begin,
    Copied,
    FollowOn,
    Known,
    Lost,
    Orphan,
    Renamed,
    Resume,
    Retired,
    Seen,
    Truncated,
    Wait,
    reconcile,
)
from siemrelay.sources.file.rotation import family, is_rotated_name
from siemrelay.sources.file.schedule import Schedule
from siemrelay.sources.file.warnings import UnreadableFiles
from siemrelay.sources.file.watcher import Changes

# How often to look again while files are being renamed, and the pause before. A rotation takes
# milliseconds; names that change for longer than this are looked at again a moment later.
_LOOKS: Final = 20
_LOOK_PAUSE_S: Final = 0.001
# How often what was decided may ask for another look at once: a truncated file begins anew.
_ROUNDS: Final = 5
# How often to look for checkpoints that are too old.
_EXPIRE_EVERY_S: Final = 60.0


class Watching(Protocol):
    """What the tracker asks of a `Watcher`."""

    @property
    def active(self) -> bool:
        """Whether changes are reported at all."""

    def watch_directory(self, path: str) -> None: ...
    def watch_file(self, file: OpenFile, file_id: FileId) -> None: ...
    def unwatch_file(self, file_id: FileId) -> None: ...
    def take_changes(self) -> Changes: ...
    def forget_moved(self) -> None: ...


class Tracker:
    """Which files there are and how far each was read. One task at a time uses it, on any thread.

    Every look at the disk is a `survey`: find and open new files, gather the facts, reconcile,
    carry out. Nothing else changes which files are followed, or what for.
    """

    def __init__(
        self, finder: Finder, watcher: Watching, disk: Disk, store: CheckpointStore,
        schedule: Schedule, unreadable: UnreadableFiles, lost: Callable[[str, int], None],
        log: Any, *, max_record_bytes: int,
        clock: Callable[[], float] = time.monotonic, pause: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        """`lost` is called with the path and the number of bytes that can no longer be read."""
        self._finder, self._watcher, self._disk, self._store = finder, watcher, disk, store
        self._unreadable, self._lost, self._log = unreadable, lost, log
        self._max_record_bytes, self._clock, self._pause = max_record_bytes, clock, pause
        self.schedule = schedule
        self.files: dict[FileId, FollowedFile] = {}
        self._orphans: dict[str, tuple[str, Orphan]] = {}
        self._changes = Changes(everything=True)
        self._moved_before: dict[str, None] = {}
        self._again = False
        self._first = True
        self._serial = max(time.time_ns(), store.latest_serial())  # a clock may be set back
        self._left_alone: dict[FileId, tuple[str, int]] = {}
        """Files that are of no concern: found by an inode that is not theirs, or unsupported."""
        self._next_expiry = clock()

    @property
    def survey_due(self) -> bool:
        """Whether files were created, renamed, deleted or truncated since the last survey."""
        return self._again or self._changes.call_for_survey

    @property
    def undecided(self) -> bool:
        """Whether there are files that may be copies, or contents whose copy may turn up."""
        return bool(self._orphans) or any(
            file.stage is Stage.WAITING for file in self.files.values()
        )

    def unread(self) -> int:
        """How many bytes are known to wait in all files."""
        return sum(file.unread for file in self.files.values())

    def collect(self) -> None:
        """Take in what the watcher has to report."""
        changes = self._watcher.take_changes()
        for file_id in changes.written:
            if (file := self.files.get(file_id)) is not None:
                file.ready = True
                self.schedule.wake(file)
        self._changes.entries |= changes.entries
        self._changes.moved |= changes.moved
        self._changes.everything |= changes.everything

    def next_read(self, family_name: str) -> tuple[FollowedFile, bool] | None:
        """As `Schedule.next_read`; a file that was truncated is left for the next survey."""
        self.collect()
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
        for _ in range(_ROUNDS):
            self._again = False
            picture, newcomers = self._look(full=full)
            orphans = {key: orphan for key, (_, orphan) in self._orphans.items()}
            known = {file_id: self._known(file) for file_id, file in self.files.items()}
            seen: dict[FileId, Seen] = {}
            for file_id, file in list(self.files.items()):
                if (sight := self._examine(file, picture)) is not None:
                    seen[file_id] = sight
            for file_id, file in list(newcomers.items()):
                if (sight := self._meet(file, newcomers, picture)) is not None:
                    seen[file_id] = sight
                else:
                    del newcomers[file_id]
            actions = reconcile(known, seen, orphans, final=final)
            self._carry_out(actions, newcomers, from_end=from_end)
            self._first = full = False
            if not self._again:
                break
        paths = {file.path for file in picture.found.values()}
        self._unreadable.keep_only(paths.union(file.path for file in self.files.values()))
        self._take_stock()

    def _look(self, *, full: bool) -> tuple[Picture, dict[FileId, FollowedFile]]:
        """Find the files, again until nothing moves meanwhile, and open those that are new.

        Listing a directory is no snapshot: of files that are renamed just then some may be
        missed, and newer ones would be read before them. What was opened stays open whatever it
        is called afterwards.
        """
        newcomers: dict[FileId, FollowedFile] = {}
        wanted = self._store.inodes()
        wanted.update(file_id[1] for file_id, file in self.files.items() if file.content is None)
        moved: dict[str, None] = {}
        for look in range(_LOOKS):
            if look > 1:
                self._pause(_LOOK_PAUSE_S)
            self.collect()
            changes, self._changes = self._changes, Changes()
            full = full or changes.everything or not self._watcher.active
            moved |= changes.moved
            # Once more for those of the last time: the news of their next rename may be under way.
            picture = self._finder.find(
                changed=None if full else changes.entries,
                moved=self._moved_before | moved,
                wanted=wanted,
            )
            for directory in self._finder.directories:
                self._watcher.watch_directory(directory)
            missed = self._open_new(picture, newcomers)
            self.collect()
            if not (missed or self._changes.call_for_survey):
                break
            full = full and self._changes.everything
        self._moved_before = moved
        self._watcher.forget_moved()
        return picture, newcomers

    def _open_new(self, picture: Picture, newcomers: dict[FileId, FollowedFile]) -> bool:
        """Open what is not followed yet; whether one has moved before it could be opened."""
        missed = False
        held = sum(file.content is not None for file in self.files.values()) + len(newcomers)
        for file_id, found in (picture.found | picture.strays).items():
            if file_id in self.files or file_id in newcomers:
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
                if stray or status.file_id in self.files or status.file_id in newcomers:
                    file.close()
                    continue
            try:
                followed = self._newcomer(found._replace(status=status), file)
            except OSError as error:
                file.close()
                self._unreadable.add(found.path, error)
                continue
            if followed is not None:
                newcomers[status.file_id] = followed
                held += 1
                if not self.schedule.may_hold(held):
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
            found.path, progress, max_record_bytes=self._max_record_bytes,
            compression=compression, clock=self._clock,
        )  # fmt: skip
        followed.adopt(file)
        followed.matched = found.matched
        # Watched first and looked at afterwards: what is written in between is not missed.
        self._watcher.watch_file(file, found.file_id)
        followed.look()
        return followed

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

    def _examine(self, file: FollowedFile, picture: Picture) -> Seen | None:
        """The facts about a file that is followed; None if nothing leads to it any more."""
        found = picture.found.get(file.file_id)
        stamp, path, matched = file.stamp, file.path, file.matched
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
        if not changed:
            try:
                file.saw(status)
            except OSError as error:
                self.failed(file, error)
        seen = Seen(
            path=path,
            matched=matched,
            deleted=file.deleted,
            changed=file.changed,
            grown=file.stamp != stamp,
            log=file.log,
            copy_by_name=may_be_a_copy(file),
            quiet_s=self._clock() - file.changed_at,
        )
        if file.changed or file.stage is Stage.READING:
            return seen
        if file.stage is not Stage.WAITING and not seen.grown:
            return seen
        return self._compared(file, seen, self.files.values())

    def _lost_content(self, file: FollowedFile, status: Status) -> bool:
        """Whether an open file was truncated; one that has grown again is found out by a read."""
        if isinstance(file.content, CompressedContent):
            return file.changed or status.size < file.content.consumed
        return file.changed or status.size < file.progress.offset

    def _is_another(self, file: FollowedFile, found: Found) -> bool:
        """Whether a closed file's inode was given to another one, or it was truncated."""
        stamp = (found.status.size, found.status.mtime_ns)
        if found.path == file.path and file.stamp in (None, stamp):
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

    def _compared(self, file: FollowedFile, seen: Seen, others: Iterable[FollowedFile]) -> Seen:
        """Add what is known of a file that may be a copy."""
        of_log = [other for other in others if other.log == file.log]
        origins = origins_of(file, of_log, self._store)
        if not origins:
            return seen
        try:
            if file.content is None:
                file.reopen(self._disk)
            extent, likenesses = compare(file, origins, self._disk)
        except (ContentChanged, FileMoved):
            self._again = True
            return msgspec.structs.replace(seen, quiet_s=0.0)
        except OSError as error:
            self.failed(file, error)
            return seen
        return msgspec.structs.replace(
            seen,
            length=extent.length,
            complete=extent.complete,
            likenesses=likenesses,
            differs=bool(file.origin) and file.origin not in {like.key for like in likenesses},
        )

    def _meet(
        self, file: FollowedFile, newcomers: dict[FileId, FollowedFile], picture: Picture
    ) -> Seen | None:
        """The facts about a file that is new; None if it is no concern of ours."""
        try:
            if file.content is None:
                file.reopen(self._disk)
            key = self._checkpoint_of(file)
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
        found = picture.found.get(file.file_id)
        if found is not None and found.path != file.path:
            file.moved_to(found.path)
        seen = Seen(
            key=file.progress.key,
            path=file.path,
            matched=file.matched,
            deleted=file.deleted,
            checkpoint=key,
            log=file.log,
            copy_by_name=may_be_a_copy(file),
            quiet_s=self._clock() - file.changed_at,
        )
        if key is not None or not seen.copy_by_name:
            return seen
        return self._compared(file, seen, [*self.files.values(), *newcomers.values()])

    def _checkpoint_of(self, file: FollowedFile) -> str | None:
        """The checkpoint that a new file continues: one of its inode, kind and content."""
        content = file.content
        assert content is not None
        for key, point in self._store.of_inode(file.progress.inode):
            # Device numbers may change when the machine starts; then the name must be the same.
            if point.device != file.progress.device and point.path != printable(file.path):
                continue
            if point.truncated or point.is_compressed != file.compressed:
                continue
            if not begins_as(content.pread(PREFIX_BYTES, 0), point):
                continue
            if isinstance(content, CompressedContent) and point.finished_size is not None:
                if self._is_finished(content, file.size, point):
                    return key
            elif point.offset and continues_at(content, point.offset, point.tail_sha256):
                return key
        return None

    def _is_finished(self, content: CompressedContent, size: int, point: FileCheckpoint) -> bool:
        assert point.finished_size is not None
        if point.end_sha256 is None:  # stored by a release that compared the beginning alone
            return point.finished_size == size
        return size >= point.finished_size and (
            content.end_sha256(point.finished_size) == point.end_sha256
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
            newcomer = newcomers.get(action.file)
            file = newcomer or self.files[action.file]
            try:
                self._do(action, file, from_end=from_end and newcomer is not None)
            except (ContentChanged, FileMoved):
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
        self._enlist(resumed, new)

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
                self._resume(file, action.key)
            case Wait():
                file.stage, file.origin = Stage.WAITING, action.origin
            case Copied():
                self._opened(file)
                self._start_behind(file, action)
            case FollowOn():
                file.stage, file.origin, file.ready = Stage.READING, None, True
            case Renamed():
                if action.path != file.path:
                    first = not is_rotated_name(file.path)
                    (self._log.info if first else self._log.debug)(
                        "renamed", path=printable(action.path), was=progress.path
                    )
                    file.moved_to(action.path)
                file.matched = action.matched
            case Truncated():
                self._log.info("truncated", path=progress.path, offset=progress.offset)
                progress.truncated = self._again = True
                self._retire(file)
            case Retired():
                self._log.info(action.why, path=progress.path)
                self._retire(file)
            case Lost():
                raise AssertionError("has no file")

    def _opened(self, file: FollowedFile) -> None:
        if file.content is None:
            file.reopen(self._disk)

    def _resume(self, file: FollowedFile, key: str) -> None:
        point = self._store.pop(key)
        content = file.content
        assert point is not None
        assert content is not None
        begin = content.pread(PREFIX_BYTES, 0)
        file.adopt_progress(Progress.resume(key, point, file.path, file.file_id, begin))
        if point.finished_size != file.size or not file.compressed:
            file.start_at(point.offset, point.part)
        else:
            file.ready = False
            file.close()
        if not file.matched:
            file.family = family(point.path)  # wherever it went, it is a generation of that
        self._orphans.pop(key, None)
        if point.gone is not None or point.path != file.progress.path:
            self._store.note(file.progress.position())

    def _start_behind(self, file: FollowedFile, action: Copied) -> None:
        file.start_at(action.through, action.part)
        file.origin = action.origin if action.whole else None
        file.stage = Stage.COPY if action.whole else Stage.READING
        file.ready = not action.whole
        if action.whole and file.compressed:
            file.finish()
        self._store.note(file.progress.position())
        origin = self._origin(action.origin)
        if not action.whole:
            self._orphans.pop(action.origin, None)
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

    def _enlist(self, resumed: list[FollowedFile], new: list[FollowedFile]) -> None:
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

    def _take_stock(self) -> None:
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
            self._retire(file)
        if now >= self._next_expiry:
            self._next_expiry = now + _EXPIRE_EVERY_S
            self._store.expire(time.time())
            self._left_alone.clear()

    def _retire(self, file: FollowedFile) -> None:
        """Follow it no longer, and remember how far it was read."""
        progress = file.progress
        if file.unread and file.stage is Stage.READING:
            orphan = Orphan(file.unread, file.log, progress.offset)
            self._orphans[progress.key] = (progress.path, orphan)
        recent = progress.recent
        self._watcher.unwatch_file(file.file_id)
        file.close()
        if progress.offset:
            self._store.put(progress.key, progress.checkpoint(gone=time.time()), recent)
        del self.files[file.file_id]
        self.schedule.remove(file)

    def close(self) -> None:
        """Close every file."""
        for file in self.files.values():
            file.close()
