"""Gathers the facts about a source's files: what is there, and what its content proves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from siemrelay.sources.file.checkpoints import CheckpointStore
from siemrelay.sources.file.content import CompressedContent
from siemrelay.sources.file.copies import (
    OriginChanged,
    checkpoint_of,
    compare,
    may_be_a_copy,
    origins_of,
)
from siemrelay.sources.file.discovery import Discovery
from siemrelay.sources.file.disk import Disk, FileId, Status
from siemrelay.sources.file.finder import Found, Globs, Listing
from siemrelay.sources.file.fingerprint import ContentChanged
from siemrelay.sources.file.reader import FileMoved, FollowedFile
from siemrelay.sources.file.reconcile import Seen, Stage
from siemrelay.sources.file.warnings import UnreadableFiles
from siemrelay.sources.file.watcher import Changes


class Facts(msgspec.Struct):
    """The facts of one survey."""

    paths: set[str]
    """Of the files that match, or were seen moving out of reach."""
    seen: dict[FileId, Seen]
    newcomers: dict[FileId, FollowedFile]
    """The open files among them that are not followed yet."""
    again: bool
    """Whether something moved meanwhile, so that another survey should follow at once."""


class Surveyor:
    """Examines the files of one source; decides nothing. Blocks on the disk."""

    def __init__(
        self, discovery: Discovery, globs: Globs, disk: Disk, store: CheckpointStore,
        unreadable: UnreadableFiles, log: Any, *,
        clock: Callable[[], float], wall_clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._discovery, self._globs, self._disk, self._store = discovery, globs, disk, store
        self._unreadable, self._log = unreadable, log
        self._clock, self._wall_clock = clock, wall_clock
        self._again = False
        self._truncated: list[FollowedFile] = []

    def survey(
        self, files: Mapping[FileId, FollowedFile], renewed: Mapping[FileId, FollowedFile],
        take_changes: Callable[[], Changes], calls_again: Callable[[], bool], *, full: bool,
    ) -> Facts:  # fmt: skip
        """Find, open and examine every file; the arguments are those of `Discovery.look`.

        `renewed`: open files whose content was truncated, to be found as new ones.
        """
        self._again = False
        newcomers = dict(renewed)
        listing = self._discovery.look(files, newcomers, take_changes, calls_again, full=full)
        seen: dict[FileId, Seen] = {}
        of_log: defaultdict[str, list[FollowedFile]] = defaultdict(list)
        for file in files.values():
            of_log[file.log].append(file)
        for file in newcomers.values():
            self._look_again(file, listing)
            of_log[file.log].append(file)
        for file_id, file in files.items():
            if (facts := self._examine(file, of_log[file.log], listing)) is not None:
                seen[file_id] = facts
        for file_id, file in list(newcomers.items()):
            if (facts := self._meet(file, of_log[file.log], listing)) is None:
                del newcomers[file_id]
                of_log[file.log].remove(file)
            else:
                seen[file_id] = facts
        for file in self._truncated:  # not before all were compared by the same facts
            file.changed = self._again = True
        self._truncated.clear()
        paths = {file.path for file in listing.found.values()}
        return Facts(paths, seen, newcomers, self._again)

    def _look_again(self, file: FollowedFile, listing: Listing) -> None:
        """See what has become of a new file since it was opened."""
        file.look()
        found = listing.found.get(file.file_id)
        path = found.path if found is not None else file.path
        if found is None and file.content is not None and not file.deleted:
            path = file.content.file.path() or path
            file.matched = self._globs.matches(path)
        if path != file.path:
            file.moved_to(path)

    def _meet(
        self, file: FollowedFile, of_log: Sequence[FollowedFile], listing: Listing
    ) -> Seen | None:
        """The facts about a file that is new; None if it is not to be followed."""
        try:
            if file.content is None:
                file.reopen(self._disk)
            file.resumes, point = checkpoint_of(file, self._store) or (None, None)
        except (ContentChanged, FileMoved):
            self._again = True
            self._discovery.dismiss(file)
            return None
        except OSError as error:
            self._unreadable.add(file.path, error)
            self._discovery.dismiss(file)
            return None
        if point is None and not file.matched and file.file_id in listing.strays:
            self._discovery.leave_alone(file)
            return None
        seen = self._seen(file, file.path, matched=file.matched)
        # A compressed file that was read to its end is proven by all of its content.
        if not seen.copy_by_name or (point is not None and point.finished_size is not None):
            return seen
        return self._compared(file, seen, of_log)

    def _examine(
        self, file: FollowedFile, of_log: Sequence[FollowedFile], listing: Listing
    ) -> Seen | None:
        """The facts about a file that is followed; None if nothing leads to it any more."""
        found = listing.found.get(file.file_id)
        path, matched = file.path, file.matched
        if file.content is not None:
            status = file.content.file.status()
            if found is not None:
                path, matched = found.path, found.matched
            else:
                matched = False
                if status.links and (now_at := file.content.file.path()) is not None:
                    path, matched = now_at, self._globs.matches(now_at)
            changed = self._lost_content(file, status)
        else:
            found = found or listing.strays.get(file.file_id)
            if found is None:
                return None
            path, matched, status = found.path, found.matched, found.status
            changed = self._is_another(file, found)
        if status.links == 0 and not file.deleted:
            self._log.info("file deleted", path=file.progress.path)
        file.changed = changed
        if not changed or file.content is not None:
            try:
                file.saw(status)
                if file.is_racy and not file.compressed:
                    file.ready = True
            except OSError as error:
                self._failed(file, error)
        seen = self._seen(file, path, matched=matched)
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

    def _seen(self, file: FollowedFile, path: str, *, matched: bool) -> Seen:
        """The facts about a file without comparing it; notes that it was surveyed."""
        point = self._store.get(file.resumes) if file.resumes else None
        # By its time of last write, too: a relay that starts need not wait for what is long whole.
        quiet_s = max(self._clock() - file.changed_at, self._wall_clock() - file.mtime_s)
        seen = Seen(
            key=file.progress.key,
            path=path,
            matched=matched,
            deleted=file.deleted,
            changed=file.changed,
            grown=file.stamp != file.surveyed,
            checkpoint=file.resumes if point is not None else None,
            checkpoint_offset=point.offset if point is not None else 0,
            log=file.log,
            begin=file.progress.begin,
            copy_by_name=may_be_a_copy(file),
            quiet_s=quiet_s,
        )
        file.surveyed = file.stamp
        return seen

    def _compared(self, file: FollowedFile, seen: Seen, of_log: Sequence[FollowedFile]) -> Seen:
        """Add what is known of a file that may be a copy."""
        origins = origins_of(file, of_log, self._store)
        if not origins:
            return seen
        try:
            if file.content is None:
                file.reopen(self._disk)
            extent, shared_prefixes = compare(file, origins, self._disk)
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
            shared_prefixes=shared_prefixes,
            differs=bool(file.origin)
            and file.origin not in {shared.key for shared in shared_prefixes},
        )

    def _failed(self, file: FollowedFile, error: OSError) -> None:
        self._unreadable.add(file.path, error)
        file.try_later()
