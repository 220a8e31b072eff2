"""Warns of a source's files: those that cannot be read, and those that disappeared unread."""

# ruff: noqa: PTH120
# Paths are text here: a survey handles them by the thousand, and Path costs tenfold.
from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

from siemrelay.sources.file.checkpoints import CheckpointStore, FileCheckpoint, printable
from siemrelay.sources.file.disk import Disk
from siemrelay.sources.file.finder import Globs
from siemrelay.sources.file.links import LinkRefused
from siemrelay.sources.file.reader import FollowedFile
from siemrelay.sources.file.reconcile import Stage

_ADVICE: Final = {
    errno.EACCES: "let the relay's user read it, by its group or an ACL (setfacl -m u:USER:r)",
    errno.EPERM: "let the relay's user read it, by its group or an ACL (setfacl -m u:USER:r)",
    errno.EMFILE: "raise LimitNOFILE",
    errno.ESTALE: "check the network file system",
    errno.EIO: "check the disk",
}
_DIRECTORY_ADVICE: Final = "let the relay's user in, by its group or an ACL (setfacl -m u:USER:rx)"
# Named in one warning; the others are counted.
_MOST_NAMED: Final = 10


class UnreadableFiles:
    """Which files cannot be read and why; every survey tries them again.

    `report` is given how many there are and a text about them, at each change.
    """

    def __init__(self, log: Any, report: Callable[[int, str], None]) -> None:
        self._log, self._report = log, report
        self._found: dict[str, str] = {}
        self._warned: set[str] = set()

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._found)

    def add(self, path: str, error: OSError) -> None:
        """Note a file that cannot be read; logs an error if that is news."""
        why, advice = error.strerror or str(error), _ADVICE.get(error.errno or 0)
        if isinstance(error, LinkRefused):
            advice = "name in `path` where it leads to, or set `follow_links`"
        self._add(path, why, advice)

    def add_directories(self, closed: Mapping[str, bool]) -> list[str]:
        """Note the directories that cannot be entered or listed; returns those that patterns name.

        For the others, to which only a wildcard leads (False), a warning is enough: they need not
        hold a log.
        """
        for path, is_named in closed.items():
            if is_named:
                self._add(path, os.strerror(errno.EACCES), _DIRECTORY_ADVICE)
            elif path not in self._warned:
                self._log.warning(
                    "a directory that `path` matches cannot be listed, what is in it is not read",
                    path=printable(path), advice=_DIRECTORY_ADVICE,
                )  # fmt: skip
        self._warned = {path for path, is_named in closed.items() if not is_named}
        return [path for path, is_named in closed.items() if is_named]

    def add_unsupported(self, path: str, compression: str) -> None:
        """Note a file that is compressed in a way that cannot be read."""
        advice = "compress with gzip, zstd, xz or bzip2, or leave such files out of `path`"
        self._add(path, f"compressed with {compression}, which is not supported", advice)

    def _add(self, path: str, why: str, advice: str | None) -> None:
        text = f"cannot read {printable(path)}: {why}" + (f"; {advice}" if advice else "")
        if self._found.get(path) != text:
            self._found[path] = text
            self._log.error("cannot read, trying again", path=printable(path), error=why,
                            advice=advice)  # fmt: skip
            self._changed()

    def discard(self, path: str) -> None:
        """The file could be read; logs that if it could not before."""
        if self._found.pop(path, None) is not None:
            self._log.info("can be read again", path=printable(path))
            self._changed()

    def keep_only(self, paths: Collection[str]) -> None:
        """Forget the files that are not among those that exist."""
        gone = [path for path in self._found if path not in paths]
        for path in gone:
            del self._found[path]
        if gone:
            self._changed()

    def _changed(self) -> None:
        if not self._found:
            self._report(0, "")
            return
        first, *others = self._found.values()
        files = f"{len(others)} more files" if len(others) > 1 else "1 more file"
        more = f" (and {files} cannot be read)" if others else ""
        self._report(len(self._found), first + more)


class MissingLogs:
    """Warns once of logs that left while the relay was stopped. Blocks on the disk.

    A log that is not to be found at the start, neither by its inode nor as a copy, was rotated to
    where the globs do not lead, deleted, or emptied. How much was written to it meanwhile nobody
    knows.
    """

    def __init__(self, globs: Globs, store: CheckpointStore, disk: Disk, log: Any) -> None:
        """To be built before `store` is asked for what is found on the disk."""
        self._globs, self._store, self._disk, self._log = globs, store, disk, log
        # Older generations were read to their end; that they go is what rotation is for. Also those
        # whose place was stored under the log's own name, which a later file has had since.
        latest: dict[str, tuple[int, str]] = {}
        for key, point in store.items():
            if _may_have_grown(point):
                latest[point.path] = max(latest.get(point.path, (0, "")), (point.serial, key))
        self._expected = [key for _, key in latest.values()]

    def warn(self, files: Iterable[FollowedFile]) -> None:
        """Warn, once it is known of what was found (`files`) whether it is a copy of them."""
        if not self._expected:
            return
        gone = [
            point
            for point in map(self._store.get, self._expected)
            # Without its directory it is not gone: a file system may be mounted late.
            if point and not point.copied and self._disk.is_directory(os.path.dirname(point.path))
        ]
        undecided = {file.log for file in files if file.stage is Stage.WAITING}
        if undecided.intersection(point.log_name for point in gone):
            return
        self._expected = []
        if not gone:
            return
        matched = all(self._globs.matches(point.path + ".1") for point in gone)
        self._log.warning(
            "files disappeared while the relay was stopped; what was written to them after the "
            "stored position is lost",
            files={point.path: point.offset for point in gone[:_MOST_NAMED]},
            count=len(gone),
            advice="keep rotated files for longer than the relay is stopped"
            if matched
            else "let `path` match rotated names, too (audit.json*)",
        )


def _may_have_grown(point: FileCheckpoint) -> bool:
    return (
        point.gone is None
        and point.offset > 0
        and not (point.copied or point.truncated)
        and not (point.is_compressed or point.is_rotated)
    )
