"""Looks for a source's files on the disk, where the globs lead and where files may have gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Final, NamedTuple

from siemrelay.sources.globbing import Found, Globs, by_inode, regular
from siemrelay.sources.watching import Watch

# How often to look again at directories in which files are being renamed, and the pause before.
# A rotation takes milliseconds; names that change for longer than these are not one.
_STEADY_LOOKS: Final = 20
_STEADY_PAUSE_S: Final = 0.001

FileId = tuple[int, int]
"""Device and inode."""


class Sighting(NamedTuple):
    """What there is on the disk."""

    found: dict[FileId, Found]
    """What matches, and what was seen leaving the globs' sight."""
    strays: dict[FileId, Found]
    """Files that have the inode of one that was read before; they may be others."""


class Search:
    """Blocks on the disk. Sets `Watch.look_around` where it could not get a steady picture."""

    def __init__(self, globs: Globs, watch: Watch, collect: Callable[[], None]) -> None:
        """`collect` takes in what the watch has to say."""
        self._globs, self._watch, self._collect = globs, watch, collect
        self._directories: set[str] = set()
        self._searched: set[str] = set()
        self._renamed: set[str] = set()

    def look(
        self, followed: Mapping[FileId, str], closed: Collection[FileId], remembered: set[int]
    ) -> Sighting:
        """Find the files.

        `followed`: the paths under which they were last seen. `closed`: those of them that cannot
        be found by their descriptor. `remembered`: inodes of files that were read before.
        """
        found = self._find_steadily(followed)
        self._find_renamed(found)
        lost = {file_id[1] for file_id in closed if file_id not in found}
        for file in by_inode(self._directories, lost) if lost else ():
            if file.file_id in followed:
                found.setdefault(file.file_id, file)
        strays: dict[FileId, Found] = {}
        if remembered and self._directories != self._searched:
            for file in by_inode(self._directories, remembered):
                if file.file_id not in found and file.file_id not in followed:
                    strays[file.file_id] = file
        return Sighting(found, strays)

    def done(self) -> None:
        """Say that the strays were dealt with: they are looked for again in new directories."""
        self._searched = self._directories

    def _find_steadily(self, followed: Mapping[FileId, str]) -> dict[FileId, Found]:
        """What the globs match, looked for again until nothing moves meanwhile.

        Listing a directory is no snapshot: of files that are renamed just then some may be
        missed, and newer ones would be read before them.
        """
        before: Mapping[FileId, str] = followed
        for look in range(_STEADY_LOOKS):
            if look > 1:
                time.sleep(_STEADY_PAUSE_S)
            self._watch.look_around = False
            found = self._globs.find()
            self._directories = self._globs.directories(found.values())
            for directory in self._directories:
                self._watch.directory(directory)
            self._collect()
            paths = {file_id: file.path for file_id, file in found.items()}
            if not self._watch.look_around and paths == before:
                break
            before = paths
        return found

    def _find_renamed(self, found: dict[FileId, Found]) -> None:
        """Add the files that were seen being renamed out of the globs' sight."""
        renamed = set(self._watch.renamed)
        self._watch.renamed.clear()
        # Once more for those of the last time: the news of their next rename may be under way.
        for path in renamed | self._renamed:
            if (file := regular(path, matched=False)) is not None:
                found.setdefault(file.file_id, file)
        self._renamed = renamed
