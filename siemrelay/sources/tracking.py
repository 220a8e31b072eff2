"""The files of one source as they are on the disk: new, renamed, rotated, deleted."""

from __future__ import annotations

import time
from typing import Any, Final

from siemrelay.sources.content import present_path
from siemrelay.sources.families import Families
from siemrelay.sources.following import Followed
from siemrelay.sources.generations import is_rotated_name
from siemrelay.sources.globbing import Found, Globs
from siemrelay.sources.identity import showable
from siemrelay.sources.recognition import Recognition
from siemrelay.sources.searching import Search, Sighting
from siemrelay.sources.troubles import Troubles
from siemrelay.sources.watching import Watch

# Descriptors held for files that are followed. With the usual limit of 1024 a process this
# leaves three quarters to connections; files beyond it are opened again when they grow.
MAX_OPEN_FILES: Final = 256
# A deleted file at its end may still be written to by whoever has it open; after this it is let go,
# so that its disk space is not held for ever.
_DELETED_QUIET_S: Final = 5.0
# As above for a file renamed out of the globs' sight, which costs but a descriptor.
_RENAMED_QUIET_S: Final = 3600.0
# How often a look at the disk is begun anew because files were renamed before they were opened.
_ATTEMPTS: Final = 5


class Tracking:
    """Which files there are, in which order they are read, and which may have something new.

    One task at a time uses it, on any thread.
    """

    def __init__(
        self, globs: Globs, watch: Watch, recognition: Recognition, troubles: Troubles, log: Any
    ) -> None:
        self._watch, self._recognition, self._log = watch, recognition, log
        self._search = Search(globs, watch, self.collect)
        self._first = True
        self.files: dict[tuple[int, int], Followed] = {}
        self.families = Families()
        self.troubles = troubles
        self.stirred: dict[str, None] = {}
        """The families that may have something to read."""
        self._opened: dict[Followed, None] = {}
        """Files held open, the one read last at the end."""

    def unread(self) -> int:
        """How many bytes are known to wait in all files."""
        return sum(followed.unread for followed in self.files.values())

    def stir(self, followed: Followed) -> None:
        """Say that the file was written to."""
        if self.files.get((followed.identity.device, followed.identity.inode)) is followed:
            followed.ready = True
            self.stirred[followed.family] = None

    def collect(self) -> None:
        """Take in what the watch has to say."""
        for followed in self._watch.collect():
            self.stir(followed)

    def has_news(self) -> bool:
        """Whether a survey is due because files were created, renamed or deleted."""
        self.collect()
        return self._watch.look_around

    def survey(self, *, from_end: bool = False) -> None:
        """Look at the disk and take note of every change. Blocks on the disk.

        `from_end`: skip what is in the files.
        """
        for attempt in range(_ATTEMPTS):
            paths = {file_id: followed.path for file_id, followed in self.files.items()}
            closed = {key for key, followed in self.files.items() if followed.content is None}
            sighting = self._search.look(paths, closed, self._recognition.memory.inodes())
            for file_id, followed in list(self.files.items()):
                if file_id in sighting.found:
                    self._seen(followed, sighting.found[file_id])
                else:
                    self._lost_sight(followed)
            opened = self._open(sighting, hastily=attempt + 1 == _ATTEMPTS)
            if opened is not None:
                self._enlist(opened, from_end=from_end)
                break
        here = {file.path for file in sighting.found.values()}
        self.troubles.only(here.union(followed.path for followed in self.files.values()))
        self._first = False
        self._search.done()
        self._recognition.expire()
        self._take_stock()

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
        now_at = present_path(followed.content.fd)
        if now_at is not None and not followed.deleted and now_at != followed.path:
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

    def _open(self, sighting: Sighting, *, hastily: bool) -> list[tuple[Followed, bool]] | None:
        """Open new files; the flag says whether a file was read before.

        None if one has moved meanwhile: another look finds it before newer ones are read, unless
        it is to be done `hastily`.
        """
        opened: list[tuple[Followed, bool]] = []
        for file_id, file in (sighting.found | sighting.strays).items():
            if file_id in self.files:
                continue
            try:
                followed, known = self._recognition.open(file)
            except FileNotFoundError:
                self._watch.look_around = True
                if hastily:
                    continue
                for followed, _ in opened:
                    self._watch.forget(followed)
                    followed.close()
                return None
            except OSError as error:
                self.troubles.met(file.path, error)
                continue
            if not known and file_id in sighting.strays:
                followed.close()
                continue
            self.troubles.over(file.path)
            if followed.content is not None:
                # Watched first and looked at again: what is written in between is not missed.
                self._watch.file(followed.content.fd, followed)
                followed.look()
            if len(self.files) + len(opened) >= MAX_OPEN_FILES:
                followed.close()
            opened.append((followed, known))
        return opened

    def _enlist(self, opened: list[tuple[Followed, bool]], *, from_end: bool) -> None:
        """Follow these files from now on, the older ones before the newer ones."""
        # Those met before came before those that were not, whatever their times.
        known_ones = sorted((f for f, known in opened if known), key=lambda f: f.identity.serial)
        new_ones = [followed for followed, known in opened if not known]
        for followed in known_ones:
            self._recognition.resumed(followed)
        for followed in new_ones:
            if from_end:
                self._recognition.skip(followed)
            else:
                followed.undecided = followed.compressed or is_rotated_name(followed.path)
        # Those of which nothing was read yet are as new: the others may be older than they.
        for name in {followed.family for followed in new_ones}:
            new_ones += self.families.take_unread(name)
        new_ones.sort(key=lambda followed: followed.birth)
        tell = self._log.debug if self._first else self._log.info
        for followed in known_ones + new_ones:
            identity = followed.identity
            if (identity.device, identity.inode) not in self.files:
                tell("found", path=identity.path, offset=identity.offset, size=followed.size)
            self._add(followed)

    def _add(self, followed: Followed) -> None:
        identity = followed.identity
        self.files[identity.device, identity.inode] = followed
        self.families.add(followed)
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

    def _is_rotated(self, followed: Followed) -> bool:
        """Whether a newer generation has taken its place, or it has left."""
        siblings = self.families.of(followed.family)
        newer = any(other.age > followed.age and not other.compressed for other in siblings)
        return newer or followed.deleted or not followed.matched

    def truncated(self, followed: Followed) -> None:
        """What was read is no longer in it: it is another file now, to be found by the survey."""
        followed.identity.truncated = True
        self._log.info("truncated", path=followed.identity.path, offset=followed.identity.offset)
        self.retire(followed)
        self._watch.look_around = True

    def settle(self, followed: Followed) -> None:
        """Say that a file has nothing more for now; the one unused for longest may be closed."""
        self._opened.pop(followed, None)
        if followed.content is not None:
            self._opened[followed] = None
        if len(self._opened) > MAX_OPEN_FILES:
            oldest = next(iter(self._opened))
            del self._opened[oldest]
            if oldest.deleted or not oldest.matched:
                self._opened[oldest] = None  # only its descriptor leads to it
            else:
                oldest.close()

    def retire(self, followed: Followed) -> None:
        """Follow it no longer, and remember how far it was read."""
        identity = followed.identity
        self._watch.forget(followed)
        self._opened.pop(followed, None)
        followed.close()
        self._recognition.remember(identity)
        del self.files[identity.device, identity.inode]
        if self.families.remove(followed):
            self.stirred.pop(followed.family, None)

    def close(self) -> None:
        """Close every file."""
        for followed in self.files.values():
            followed.close()
