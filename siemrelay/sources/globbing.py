"""What the globs match on the disk now, and where else a file may have gone."""

# ruff: noqa: PTH100, PTH111, PTH112, PTH114, PTH116, PTH119, PTH120, PTH207
# Paths are text here: each look at the disk handles them by the thousand, and Path costs tenfold.
from __future__ import annotations

import glob
import os
import stat
from collections.abc import Collection, Iterable, Sequence
from fnmatch import translate
from functools import cache
from re import Pattern
from re import compile as compile_pattern
from typing import NamedTuple


class Found(NamedTuple):
    """A regular file."""

    path: str
    status: os.stat_result
    matched: bool = True
    """Whether a glob matches it; else it was found by its name or inode."""

    @property
    def file_id(self) -> tuple[int, int]:
        """Device and inode."""
        return self.status.st_dev, self.status.st_ino


class Globs:
    """The patterns of one source. Everything here blocks on the disk."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = [os.path.abspath(os.path.expanduser(pattern)) for pattern in patterns]
        self._names = [_name_pattern(os.path.basename(pattern)) for pattern in self.patterns]

    def is_wanted(self, name: str) -> bool:
        """Whether a file of that name may match, whatever directory it is in."""
        return any(pattern.match(name) for pattern in self._names)

    def matches(self, path: str) -> bool:
        """Whether `find` would give a regular file of that absolute path. Asks no disk."""
        names = path.split("/")[1:]
        return any(_leads_to(pattern.split("/")[1:], names) for pattern in self.patterns)

    def find(self) -> dict[tuple[int, int], Found]:
        """Every regular file that matches, by device and inode."""
        found: dict[tuple[int, int], Found] = {}
        for pattern in self.patterns:
            # A path without wildcards is what it is, whatever brackets glob would see in it.
            names = glob.iglob(pattern, recursive=True) if glob.has_magic(pattern) else [pattern]
            for path in names:
                if (file := regular(path)) is not None:
                    found.setdefault(file.file_id, file)
        return found

    def directories(self, files: Iterable[Found]) -> set[str]:
        """Where matching files are or may appear: every level of the patterns that exists."""
        found: set[str] = set()
        for pattern in self.patterns:
            level = os.path.dirname(pattern)
            while glob.has_magic(level):
                found.update(
                    path.rstrip("/") or "/" for path in glob.iglob(level + "/", recursive=True)
                )
                level = os.path.dirname(level)
            if os.path.isdir(level):
                found.add(level)
        for file in files:
            # Rotation happens where a link leads to.
            if os.path.islink(file.path):
                found.add(os.path.dirname(os.path.realpath(file.path)))
        return found


@cache
def _name_pattern(name: str) -> Pattern[str]:
    return compile_pattern(".*" if name == "**" else translate(name))


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


def regular(path: str, *, matched: bool = True) -> Found | None:
    """The regular file of that path; None if there is none (that we may see)."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return Found(path, status, matched) if stat.S_ISREG(status.st_mode) else None


def by_inode(directories: Iterable[str], wanted: Collection[int]) -> Iterable[Found]:
    """The files in these directories that have one of the wanted inode numbers."""
    for directory in directories:
        try:
            with os.scandir(directory) as entries:
                paths = [entry.path for entry in entries if entry.inode() in wanted]
        except OSError:
            continue
        for path in paths:
            if (file := regular(path, matched=False)) is not None:
                yield file
