"""inotify: what happened to the watched files and directories, known within a millisecond.

A helper, not an authority: everything it reports is also found by looking, only later. So every
failure here (no inotify, limits reached, a network file system) costs latency alone.
"""

# ruff: noqa: PTH118, PTH119
# Paths are text here: a survey handles them by the thousand, and Path costs tenfold.
from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
import trio

from siemrelay.sources.file.disk import FileId, OpenFile

if TYPE_CHECKING:
    from inotify_simple import INotify  # it has no types

# From <sys/inotify.h>; the kernel's interface, so these do not change.
_MODIFY: Final = 0x2
_MOVED_FROM: Final = 0x40
_MOVED_TO: Final = 0x80
_CREATE: Final = 0x100
_DELETE: Final = 0x200
_DELETE_SELF: Final = 0x400
_MOVE_SELF: Final = 0x800
_QUEUE_OVERFLOW: Final = 0x4000
_IGNORED: Final = 0x8000
_ONLY_DIRECTORIES: Final = 0x0100_0000
_IS_DIRECTORY: Final = 0x4000_0000
_IN_DIRECTORY: Final = (
    _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF | _ONLY_DIRECTORIES
)
_LIMITS: Final = {
    errno.EMFILE: "raise fs.inotify.max_user_instances or the limit of open files",
    errno.ENFILE: "raise fs.file-max",
    errno.ENOSPC: "raise fs.inotify.max_user_watches",
}

# `struct inotify_event` without the name: watch, mask, cookie, bytes of the name.
_EVENT: Final = struct.Struct("iIII")

# A read gives as many events as fit, of which the longest (with a name of 255 bytes) has this size.
_READ_BYTES: Final = 4096
_EVENT_BYTES: Final = _EVENT.size + 256

# After so many surveys of every file (half a minute) events are taken to report everything.
_CLEAN_SURVEYS: Final = 30


class Changes(msgspec.Struct):
    """The changes since the last call."""

    written: dict[FileId, None] = msgspec.field(default_factory=dict)
    """Files that were written to."""
    entries: set[str] = msgspec.field(default_factory=set)
    """Paths of wanted names that were created, renamed or deleted."""
    moved: dict[str, str] = msgspec.field(default_factory=dict)
    """Paths that wanted files were renamed to, which no glob need match, and from which."""
    everything: bool = False
    """Whether anything may have changed."""

    @property
    def call_for_survey(self) -> bool:
        return self.everything or bool(self.entries)


class Reliability:
    """Whether events report all that happens: on a network file system, say, they do not.

    Checked by test_a_log_whose_writes_no_event_reports_is_looked_at_as_often_as_configured.
    """

    def __init__(self) -> None:
        self._reported, self._missed, self._clean_surveys = True, False, 0
        self.proven = False
        """Whether many surveys of every file have found nothing that was not reported."""

    def reported(self, changes: Changes) -> None:
        """Events came, since the last survey."""
        self._reported = self._reported or bool(changes.written) or changes.call_for_survey

    def surveyed(self, *, full: bool, found: bool) -> None:
        """A survey, of every file or not, has `found` something that is new since the last one."""
        self._missed = self._missed or (found and not self._reported)
        self._clean_surveys += full
        self._reported = False
        self.proven = not self._missed and self._clean_surveys >= _CLEAN_SURVEYS


class Watching(Protocol):
    """The part of a `Watcher` that a survey uses."""

    @property
    def active(self) -> bool:
        """Whether changes are reported at all."""

    def watch_directory(self, path: str) -> None: ...
    def watch_file(self, file: OpenFile, file_id: FileId) -> None: ...
    def unwatch_file(self, file_id: FileId) -> None: ...
    def take_changes(self) -> Changes | None: ...
    def forget_moved(self) -> None: ...


class Watcher:
    """Watches directories for changes of their entries, and files for writes."""

    def __init__(self, log: Any, is_wanted: Callable[[str], bool]) -> None:
        """`is_wanted`: whether a change to a file of that name (without directory) matters."""
        self._log, self._is_wanted = log, is_wanted
        self._inotify: INotify | None = None
        self._descriptor = -1
        self.active = False
        """Whether changes are reported at all."""
        self._directories: dict[int, str] = {}
        self._paths: dict[str, int] = {}
        self._files: dict[int, FileId] = {}
        self._descriptors: dict[FileId, int] = {}
        self._moved: dict[str, str] = {}
        self._warned = False

    def open(self) -> None:
        """Begin. Takes some milliseconds."""
        try:
            import inotify_simple

            self._inotify = inotify_simple.INotify(nonblocking=True)
            self._descriptor, self.active = self._inotify.fileno(), True
        except (OSError, ImportError) as error:
            self._give_up(error)

    def _give_up(self, error: OSError | ImportError) -> None:
        if not self._warned:
            self._warned = True
            advice = _LIMITS.get(error.errno or 0) if isinstance(error, OSError) else None
            self._log.warning("inotify not available, polling", error=str(error), advice=advice)

    def watch_directory(self, path: str) -> None:
        """Watch a directory's entries."""
        if path not in self._paths and (wd := self._add(path, _IN_DIRECTORY)) is not None:
            self._paths[path], self._directories[wd] = wd, path

    def watch_file(self, file: OpenFile, file_id: FileId) -> None:
        """Watch an open file for writes, whatever it is called later."""
        # Through /proc the watch is on the very file that is open, not on what has its name now.
        if (wd := self._add(f"/proc/self/fd/{file.fd}", _MODIFY)) is not None:
            self._files[wd], self._descriptors[file_id] = file_id, wd

    def _add(self, path: str, mask: int) -> int | None:
        if self._inotify is None:
            return None
        try:
            return int(self._inotify.add_watch(path, mask))
        except OSError as error:
            if error.errno in _LIMITS:
                self._give_up(error)
            return None  # gone or forbidden: the poll finds what it can

    def unwatch_file(self, file_id: FileId) -> None:
        wd = self._descriptors.pop(file_id, None)
        if wd is not None and self._files.get(wd) == file_id:
            del self._files[wd]
            self._remove(wd)

    def _remove(self, wd: int) -> None:
        if self._inotify is not None:
            try:
                self._inotify.rm_watch(wd)
            except OSError:
                return  # the kernel removed it with its file

    def _reported(self) -> bytes:
        """All events, as inotify(7) has them; one call where there are few, or none."""
        reported = b""
        try:
            while self._inotify is not None:
                some = os.read(self._descriptor, _READ_BYTES)
                reported += some
                if len(some) <= _READ_BYTES - _EVENT_BYTES:
                    break
        except BlockingIOError:
            pass  # that was all
        return reported

    def take_changes(self) -> Changes | None:
        """The changes since the last call; None if there are none."""
        if not (reported := self._reported()):
            return None
        changes, end = Changes(), 0
        leaving: dict[int, str] = {}
        while end < len(reported):
            wd, mask, cookie, named = _EVENT.unpack_from(reported, end)
            end += _EVENT.size + named
            if (file_id := self._files.get(wd)) is not None:
                if mask & _IGNORED:
                    del self._files[wd]
                    self._descriptors.pop(file_id, None)
                else:
                    changes.written[file_id] = None
            elif mask & _QUEUE_OVERFLOW:
                changes.everything = True
            elif (directory := self._directories.get(wd)) is not None:
                name = reported[end - named : end].rstrip(b"\0")
                path = os.path.join(directory, os.fsdecode(name))
                self._entry(changes, wd, mask, cookie, path, leaving)
        if changes.moved:
            self._moved.update(changes.moved)
        return changes

    def forget_moved(self) -> None:
        """The files that were renamed were looked for: their names do not matter any more."""
        self._moved.clear()

    def _entry(
        self, changes: Changes, wd: int, mask: int, cookie: int, path: str, leaving: dict[int, str]
    ) -> None:
        if mask & (_IGNORED | _DELETE_SELF | _MOVE_SELF):
            changes.everything = True
            self._paths.pop(self._directories.pop(wd), None)
            if not mask & _IGNORED:
                self._remove(wd)
            return
        if mask & _IS_DIRECTORY:
            changes.everything = True
            return
        wanted = (
            self._is_wanted(os.path.basename(path)) or path in changes.moved or path in self._moved
        )
        if mask & _MOVED_FROM and wanted:
            leaving[cookie] = path
        elif mask & _MOVED_TO and (was := leaving.pop(cookie, None)) is not None:
            # A file may be rotated twice before it is looked at, out of the reach of the globs.
            wanted = True
            changes.moved[path] = changes.moved.get(was) or self._moved.get(was, was)
        if wanted:
            changes.entries.add(path)

    async def wait(self) -> None:
        """Wait until something has happened; for ever where inotify is not available."""
        if self._inotify is None:
            await trio.sleep_forever()
        else:
            await trio.lowlevel.wait_readable(self._descriptor)

    def close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
            self._inotify, self.active = None, False
