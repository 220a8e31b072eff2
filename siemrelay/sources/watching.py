"""inotify: what happened to the watched files and directories, told within a millisecond.

A helper, not an authority: everything it says is found by looking, too, only later. So every
failure here (no inotify, limits reached, a network file system) costs latency alone.
"""

# ruff: noqa: PTH118, PTH119
# Paths are text here: each look at the disk handles them by the thousand, and Path costs tenfold.
from __future__ import annotations

import errno
import os.path
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import trio

from siemrelay.sources.following import Followed

if TYPE_CHECKING:
    from inotify_simple import INotify  # type: ignore[import-untyped]  # it has no types

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


class Watch:
    """Watches directories for changes of their entries, and files for writes."""

    def __init__(self, log: Any, is_wanted: Callable[[str], bool]) -> None:
        """`is_wanted` says of a file name (without directory) whether its fate matters."""
        self._log, self._is_wanted = log, is_wanted
        self._inotify: INotify | None = None
        self._directories: dict[int, str] = {}
        self._paths: dict[str, int] = {}
        self._files: dict[int, Followed] = {}
        self._descriptors: dict[Followed, int] = {}
        self._warned = False
        self.look_around = True
        """Whether entries have changed since this was last set to False."""
        self.renamed: dict[str, None] = {}
        """New paths of wanted files; may not match a glob."""

    def open(self) -> None:
        """Begin. Takes some milliseconds."""
        try:
            import ctypes

            import inotify_simple

            # inotify_simple would run `ldconfig` to find the C library that this process has
            # loaded already: 25 ms of start-up.
            if getattr(inotify_simple, "_libc", True) is None:
                inotify_simple._libc = ctypes.CDLL(None, use_errno=True)
            self._inotify = inotify_simple.INotify(nonblocking=True)
        except (OSError, ImportError) as error:
            self._give_up(error)

    def _give_up(self, error: OSError | ImportError) -> None:
        if not self._warned:
            self._warned = True
            advice = _LIMITS.get(error.errno or 0) if isinstance(error, OSError) else None
            self._log.warning("inotify not available, polling", error=str(error), advice=advice)

    def directory(self, path: str) -> None:
        """Watch a directory's entries."""
        if path not in self._paths and (wd := self._add(path, _IN_DIRECTORY)) is not None:
            self._paths[path], self._directories[wd] = wd, path

    def file(self, fd: int, followed: Followed) -> None:
        """Watch an open file for writes, whatever it is called later."""
        # Through /proc the watch is on the very file that is open, not on what has its name now.
        if (wd := self._add(f"/proc/self/fd/{fd}", _MODIFY)) is not None:
            self._files[wd], self._descriptors[followed] = followed, wd

    def _add(self, path: str, mask: int) -> int | None:
        if self._inotify is None:
            return None
        try:
            return int(self._inotify.add_watch(path, mask))
        except OSError as error:
            if error.errno in _LIMITS:
                self._give_up(error)
            return None  # gone or forbidden: the poll finds what it can

    def forget(self, followed: Followed) -> None:
        """Watch that file no longer."""
        wd = self._descriptors.pop(followed, None)
        if wd is not None and self._files.get(wd) is followed:
            del self._files[wd]
            self._remove(wd)

    def _remove(self, wd: int) -> None:
        if self._inotify is not None:
            try:
                self._inotify.rm_watch(wd)
            except OSError:
                return  # the kernel removed it with its file

    def collect(self) -> list[Followed]:
        """The files written to since the last call; sets `look_around` and `renamed`."""
        if self._inotify is None:
            return []
        written: dict[int, Followed] = {}
        leaving: dict[int, str] = {}
        for wd, mask, cookie, name in self._inotify.read(timeout=0):
            if (followed := self._files.get(wd)) is not None:
                if mask & _IGNORED:
                    del self._files[wd]
                    self._descriptors.pop(followed, None)
                else:
                    written[wd] = followed
            elif mask & _QUEUE_OVERFLOW:
                self.look_around = True
            elif (directory := self._directories.get(wd)) is not None:
                self._entry(wd, mask, cookie, os.path.join(directory, name), leaving)
        return list(written.values())

    def _entry(self, wd: int, mask: int, cookie: int, path: str, leaving: dict[int, str]) -> None:
        if mask & (_IGNORED | _DELETE_SELF | _MOVE_SELF):
            self.look_around = True
            self._paths.pop(self._directories.pop(wd), None)
            if not mask & _IGNORED:
                self._remove(wd)
            return
        wanted = bool(mask & _IS_DIRECTORY) or self._is_wanted(os.path.basename(path))
        if path in self.renamed:
            wanted = True
        if mask & _MOVED_FROM and wanted:
            leaving[cookie] = path
        elif mask & _MOVED_TO and leaving.pop(cookie, None) is not None:
            # A file may be rotated twice before it is looked at, out of the globs' sight.
            wanted = True
            if not mask & _IS_DIRECTORY:
                self.renamed[path] = None
        self.look_around = self.look_around or wanted

    async def wait(self) -> None:
        """Wait until something has happened; for ever where inotify is not available."""
        if self._inotify is None:
            await trio.sleep_forever()
        else:
            await trio.lowlevel.wait_readable(self._inotify.fileno())

    def close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
