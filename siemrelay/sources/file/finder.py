"""Finds the files that the globs match now, and files that were moved to where no glob leads."""

# ruff: noqa: PTH100, PTH111, PTH118, PTH119, PTH120
# Paths are text here: a survey handles them by the thousand, and Path costs tenfold.
from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from fnmatch import translate
from functools import cache
from re import Pattern
from re import compile as compile_pattern
from typing import NamedTuple

from siemrelay.sources.file.disk import Disk, FileId, Status


class Found(NamedTuple):
    """A regular file."""

    path: str
    status: Status
    matched: bool = True
    """Whether a glob matches it; else it was found by its name or inode."""

    @property
    def file_id(self) -> FileId:
        return self.status.file_id


Unsettled = tuple[str, int, int]
"""A name, the inode that the directory gave for it, and the one that it had a moment later (0: none
that is a regular file)."""


class Listing(NamedTuple):
    """The files on the disk, as one look found them."""

    found: dict[FileId, Found]
    """Files that match, or were seen leaving the reach of the globs."""
    strays: dict[FileId, Found]
    """Other files that have a wanted inode; they need not be the files looked for."""
    unsettled: frozenset[Unsettled]
    """Names that were given to other files while they were looked at, so that files may have been
    missed. On file systems whose directories have inodes of their own (overlayfs) it is all names,
    the same each time.
    """


class Globs:
    """The patterns of one source, matched by their text alone."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = [os.path.abspath(os.path.expanduser(pattern)) for pattern in patterns]
        self._names = [_name_pattern(os.path.basename(pattern)) for pattern in self.patterns]

    def is_wanted(self, name: str) -> bool:
        """Whether a file of that name may match, whatever directory it is in."""
        return any(pattern.match(name) for pattern in self._names)

    def matches(self, path: str) -> bool:
        """Whether a `Finder` would find a regular file of that absolute path."""
        names = path.split("/")[1:]
        return any(_leads_to(pattern.split("/")[1:], names) for pattern in self.patterns)


class Finder:
    """Looks for the files of one source. Blocks on the disk."""

    def __init__(self, globs: Globs, disk: Disk) -> None:
        self.globs, self._disk = globs, disk
        self.directories: set[str] = set()
        """Where matching files are or may appear: every level of the patterns that exists."""
        self._statuses: dict[str, Found] = {}
        self._listed: set[str] = set()

    def find(
        self, *, changed: Collection[str] | None, moved: Iterable[str] = (),
        wanted: Collection[int] = (),
    ) -> Listing:  # fmt: skip
        """Every regular file that matches.

        `changed`: the only paths whose status may differ from the last call's, beside those that
        now have another inode; None looks at all of them anew. `moved`: paths that files were
        seen moving to. `wanted`: inodes to look for among the files that do not match.
        """
        places = self._places()
        self._listed = set(places)
        self.directories = self._levels().union(places)
        before, self._statuses = self._statuses, {}
        found: dict[FileId, Found] = {}
        strays: list[tuple[str, int]] = []
        unsettled: set[Unsettled] = set()
        for directory, names in places.items():
            for name, inode, is_link in self._disk.entries(directory):
                if any(pattern.match(name) for pattern in names):
                    path = os.path.join(directory, name)
                    known = before.get(path)
                    if known and not is_link and changed is not None and path not in changed:
                        known = known if known.status.inode == inode else None
                    else:
                        known = None
                    file = known or self._regular(path)
                    self._note(found, file)
                    if is_link:
                        self.directories.add(self._disk.link_directory(path))
                    elif file is None or file.status.inode != inode:
                        unsettled.add((path, inode, file.status.inode if file else 0))
                elif inode in wanted:
                    strays.append((os.path.join(directory, name), inode))
        for path in self._literal_paths():
            self._note(found, self._regular(path))
            if os.path.dirname(path) != (leads_to := self._disk.link_directory(path)):
                self.directories.add(leads_to)
        for path in moved:
            if (file := self._regular(path, matched=self.globs.matches(path))) is not None:
                found.setdefault(file.file_id, file)
        for directory in self.directories.difference(places) if wanted else ():
            for name, inode, _ in self._disk.entries(directory):
                if inode in wanted:
                    strays.append((os.path.join(directory, name), inode))
        return Listing(found, self._strays(strays, found, unsettled), frozenset(unsettled))

    def closed(self) -> dict[str, bool]:
        """The directories that this process may not enter or list, as the last `find` met them.

        True for those that a pattern names, False for those to which only a wildcard leads.
        """
        named: dict[str, bool] = {}
        for pattern in self.globs.patterns:
            directory = os.path.dirname(pattern)
            while glob.has_magic(directory):
                directory = os.path.dirname(directory)
            named[directory] = named.get(directory, False) or glob.has_magic(pattern)
        closed = {
            barrier: True
            for directory, listed in named.items()
            if (barrier := self._disk.barrier(directory, listed=listed)) is not None
        }
        for directory in self._listed.difference(named):
            if (barrier := self._disk.barrier(directory, listed=True)) is not None:
                closed.setdefault(barrier, False)
        return closed

    def _note(self, found: dict[FileId, Found], file: Found | None) -> None:
        if file is not None:
            self._statuses[file.path] = file
            found.setdefault(file.file_id, file)

    def _regular(self, path: str, *, matched: bool = True) -> Found | None:
        status = self._disk.status(path)
        return None if status is None else Found(path, status, matched)

    def _strays(
        self, listed: Iterable[tuple[str, int]], found: Collection[FileId],
        unsettled: set[Unsettled],
    ) -> dict[FileId, Found]:  # fmt: skip
        strays: dict[FileId, Found] = {}
        for path, inode in listed:
            file = self._regular(path, matched=False)
            if file is None or file.status.inode != inode:
                unsettled.add((path, inode, file.status.inode if file else 0))
            if file is not None and file.file_id not in found:
                strays.setdefault(file.file_id, file)
        return strays

    def _literal_paths(self) -> Iterator[str]:
        # A path without wildcards is what it is, whatever brackets glob would see in it.
        return (path for path in self.globs.patterns if not glob.has_magic(path))

    def _places(self) -> dict[str, list[Pattern[str]]]:
        """The directories that patterns lead to, with the patterns of the names there."""
        places: dict[str, list[Pattern[str]]] = {}
        for pattern in filter(glob.has_magic, self.globs.patterns):
            directory, name = os.path.split(pattern)
            # `/var/log/**` stands for the files in any depth.
            for path in self._disk.directories(pattern if name == "**" else directory):
                places.setdefault(path.replace("//", "/"), []).append(_shown(name))
        return places

    def _levels(self) -> set[str]:
        found: set[str] = set()
        for pattern in self.globs.patterns:
            level = os.path.dirname(pattern)
            while glob.has_magic(level):
                found.update(self._disk.directories(level))
                level = os.path.dirname(level)
            if self._disk.is_directory(level):
                found.add(level)
        return found


@cache
def _name_pattern(name: str) -> Pattern[str]:
    return compile_pattern(".*" if name == "**" else translate(name))


@cache
def _shown(name: str) -> Pattern[str]:
    """As `_name_pattern`; only one with a leading dot matches hidden names."""
    hidden = "" if name.startswith(".") else r"(?!\.)"
    return compile_pattern(hidden + _name_pattern(name).pattern)


def _leads_to(parts: Sequence[str], names: Sequence[str]) -> bool:
    """Whether the pattern's parts lead to the path's names, as `glob` has it: `**` stands for any
    folders, and only a part with a leading dot matches a hidden name.
    """
    if not parts or not names:
        return not parts and not names
    part, name, rest = parts[0], names[0], names[1:]
    shown = part.startswith(".") or not name.startswith(".")
    if part != "**":
        return shown and _name_pattern(part).match(name) is not None and _leads_to(parts[1:], rest)
    if len(parts) > 1 and _leads_to(parts[1:], names):
        return True
    return shown and (_leads_to(parts, rest) if rest else len(parts) == 1)
