"""The files of one source as they are on the disk: new, renamed, rotated, deleted."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable
from typing import Any, Final

from siemrelay.sources.following import Followed
from siemrelay.sources.generations import base_name, is_rotated_name
from siemrelay.sources.globbing import Found, Globs, by_inode, regular
from siemrelay.sources.identity import showable
from siemrelay.sources.recognition import Recognition
from siemrelay.sources.watching import Watch

# Descriptors held for files that are followed. With the usual limit of 1024 a process this
# leaves three quarters to connections; files beyond it are opened again when they grow.
MAX_OPEN_FILES: Final = 256
# A deleted file at its end may still be written to by whoever has it open; after this it is let go,
# so that its disk space is not held for ever.
_DELETED_QUIET_S: Final = 5.0
# As above for a file renamed out of the globs' sight, which costs but a descriptor.
_RENAMED_QUIET_S: Final = 3600.0

_ADVICE: Final = {
    errno.EACCES: "let the relay's user read it, by its group or an ACL (setfacl -m u:USER:r)",
    errno.EPERM: "let the relay's user read it, by its group or an ACL (setfacl -m u:USER:r)",
    errno.EMFILE: "raise LimitNOFILE",
    errno.ESTALE: "check the network file system",
    errno.EIO: "check the disk",
}


class Tracking:
    """Which files there are, in which order they are read, and which may have something new.

    One task at a time uses it, on any thread.
    """

    def __init__(self, globs: Globs, watch: Watch, recognition: Recognition, log: Any) -> None:
        self._globs, self._watch, self._recognition, self._log = globs, watch, recognition, log
        self.files: dict[tuple[int, int], Followed] = {}
        self.families: dict[str, list[Followed]] = {}
        """The generations of each log, oldest first: they are read in this order."""
        self.stirred: dict[str, None] = {}
        """The families that may have something to read."""
        self._families_by_log: dict[str, dict[str, None]] = {}
        self._directories: set[str] | None = None
        self._renamed: set[str] = set()
        self._troubles: dict[str, int | None] = {}

    def relatives(self, followed: Followed) -> list[Followed]:
        """What is followed of the same log, in any directory."""
        families = self._families_by_log.get(base_name(followed.path), {})
        return [other for name in families for other in self.families[name]]

    def stir(self, followed: Followed) -> None:
        """Say that the file was written to."""
        if self.files.get((followed.identity.device, followed.identity.inode)) is followed:
            followed.ready = True
            self.stirred[followed.family] = None

    def survey(self, *, from_end: bool = False) -> None:
        """Look at the disk and take note of every change. Blocks on the disk.

        `from_end`: skip what is in the files.
        """
        first = self._directories is None
        found = self._globs.find()
        directories = self._globs.directories(found.values())
        for directory in directories:
            self._watch.directory(directory)
        self._find_renamed(found)
        for file in self._elsewhere(found, directories):
            if file.file_id in self.files:
                found.setdefault(file.file_id, file)
        for file_id, followed in list(self.files.items()):
            if file_id in found:
                self._seen(followed, found[file_id])
            else:
                self._lost_sight(followed)
        fresh = [file for file_id, file in found.items() if file_id not in self.files]
        self._enlist(fresh, quietly=first, from_end=from_end)
        if directories != self._directories:
            self._enlist(self._rotated_meanwhile(found, directories), only_known=True)
        self._directories = directories
        if first:
            self._log.info("following", files=len(self.files), patterns=self._globs.patterns)
        self._recognition.expire()
        self._take_stock()

    def _find_renamed(self, found: dict[tuple[int, int], Found]) -> None:
        """Add the files that were seen being renamed out of the globs' sight."""
        renamed = set(self._watch.renamed)
        self._watch.renamed.clear()
        # Once more for those of the last time: the news of their next rename may be under way.
        for path in renamed | self._renamed:
            if (file := regular(path, matched=False)) is not None:
                found.setdefault(file.file_id, file)
        self._renamed = renamed

    def _elsewhere(
        self, found: dict[tuple[int, int], Found], directories: set[str]
    ) -> Iterable[Found]:
        """Files that are followed but not held open, and have another name now."""
        lost = {
            inode
            for (device, inode), followed in self.files.items()
            if followed.content is None and (device, inode) not in found
        }
        return by_inode(directories, lost) if lost else ()

    def _rotated_meanwhile(
        self, found: dict[tuple[int, int], Found], directories: set[str]
    ) -> list[Found]:
        """Files whose inode is remembered, whatever they are called."""
        wanted = self._recognition.memory.inodes()
        return [file for file in by_inode(directories, wanted) if file.file_id not in found]

    def _seen(self, followed: Followed, file: Found) -> None:
        if followed.path != file.path:
            self._log.info("renamed", path=showable(file.path), was=followed.identity.path)
            followed.moved_to(file.path)
        followed.matched = file.matched
        self._look(followed, file)

    def _lost_sight(self, followed: Followed) -> None:
        """No glob finds it: renamed or deleted. While it is open it can still be read."""
        if followed.content is None:
            self._log.info("gone", path=followed.identity.path)
            self.retire(followed)
            return
        followed.matched = False
        self._look(followed)
        try:
            now_at = os.readlink(f"/proc/self/fd/{followed.content.fd}")
        except OSError:
            return
        if not followed.deleted and now_at != followed.path:
            self._log.info("renamed", path=showable(now_at), was=followed.identity.path)
            followed.moved_to(now_at)

    def _look(self, followed: Followed, file: Found | None = None) -> None:
        was_deleted = followed.deleted
        if followed.content is not None:
            followed.look()
        elif file is not None:
            followed.saw(file.status)
        if followed.deleted and not was_deleted:
            self._log.info("deleted", path=followed.identity.path)

    def _enlist(
        self,
        files: Iterable[Found],
        *,
        quietly: bool = False,
        from_end: bool = False,
        only_known: bool = False,
    ) -> None:
        """Follow these files from now on, the older ones before the newer ones."""
        opened: list[tuple[Followed, bool]] = []
        for file in files:
            try:
                followed, known = self._recognition.open(file)
            except OSError as error:
                self.trouble(file.path, error)
                continue
            self._troubles.pop(file.path, None)
            if only_known and not known:
                followed.close()
                continue
            if not known and from_end:
                self._recognition.skip(followed)
            elif not known:
                followed.undecided = followed.compressed or is_rotated_name(file.path)
            if followed.content is not None:
                # Watched first and looked at again: what is written in between is not missed.
                self._watch.file(followed.content.fd, followed)
                followed.look()
            if len(self.files) + len(opened) >= MAX_OPEN_FILES:
                followed.close()
            opened.append((followed, known))
        # Those met before came before those that were not, whatever their times.
        opened.sort(key=lambda item: (not item[1], *item[0].birth(known=item[1])))
        for followed, known in opened:
            self._add(followed)
            tell = self._log.debug if quietly else self._log.info
            tell(
                "found again" if known else "found",
                path=followed.identity.path,
                offset=followed.identity.offset,
                size=followed.size,
            )

    def _add(self, followed: Followed) -> None:
        identity = followed.identity
        self.files[identity.device, identity.inode] = followed
        self.families.setdefault(followed.family, []).append(followed)
        self._families_by_log.setdefault(base_name(followed.path), {})[followed.family] = None
        self.stirred[followed.family] = None

    def _take_stock(self) -> None:
        """Find what was rotated, what is to be read, and what to let go of."""
        now = time.monotonic()
        for followed in list(self.files.values()):
            if not self._is_rotated(followed):
                followed.rotated_at = None
            elif followed.rotated_at is None:
                followed.rotated_at = now
            if not followed.idle:
                self.stirred[followed.family] = None
                continue
            quiet_s = now - max(followed.changed_at, followed.rotated_at or 0.0)
            if followed.deleted and quiet_s >= _DELETED_QUIET_S:
                self._log.info("finished", path=followed.identity.path)
                self.retire(followed)
            elif not followed.matched and not followed.deleted and quiet_s >= _RENAMED_QUIET_S:
                self._log.info("not written to any more", path=followed.identity.path)
                self.retire(followed)
        self._close_some()

    def _is_rotated(self, followed: Followed) -> bool:
        """Whether a newer generation has taken its place, or it has left."""
        return (
            not followed.matched
            or followed.deleted
            or any(
                other.age > followed.age and not other.compressed
                for other in self.families[followed.family]
            )
        )

    def _close_some(self) -> None:
        able = [
            followed
            for followed in self.files.values()
            if followed.content is not None and followed.matched and followed.idle
        ]
        opened = sum(followed.content is not None for followed in self.files.values())
        able.sort(key=lambda followed: followed.changed_at)
        for followed in able[: max(0, opened - MAX_OPEN_FILES)]:
            followed.close()

    def truncated(self, followed: Followed) -> None:
        """What was read is no longer in it: it is another file now, to be found by the survey."""
        self._log.info("truncated", path=followed.identity.path, offset=followed.identity.offset)
        self.retire(followed)
        self._watch.look_around = True

    def trouble(self, path: str, error: OSError) -> None:
        """Warn once of a file that cannot be read; it is tried again with every survey."""
        if self._troubles.get(path, 0) != error.errno:
            self._troubles[path] = error.errno
            self._log.warning(
                "cannot read, trying again",
                path=showable(path),
                error=error.strerror or str(error),
                advice=_ADVICE.get(error.errno or 0),
            )

    def retire(self, followed: Followed) -> None:
        """Follow it no longer, and remember how far it was read."""
        identity = followed.identity
        self._watch.forget(followed)
        followed.close()
        self._recognition.remember(identity)
        del self.files[identity.device, identity.inode]
        members = self.families[followed.family]
        members.remove(followed)
        if not members:
            del self.families[followed.family]
            self.stirred.pop(followed.family, None)
            for families in self._families_by_log.values():
                families.pop(followed.family, None)

    def close(self) -> None:
        """Close every file."""
        for followed in self.files.values():
            followed.close()
