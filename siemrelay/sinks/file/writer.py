"""The archive's current file: checked when opened, appended to, synced. Every method blocks."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from siemrelay.core.errors import SinkHolds, SinkWaits
from siemrelay.durable_files import give_to_owner, sync_directory

_log = structlog.get_logger()

# Only the relay's user may read audit events.
MODE: Final = 0o600

# How much is read at a time to find the end of the last whole line.
_TAIL_BYTES: Final = 64 * 1024

# So much of an incomplete line must be the beginning of a record to be sent, or the line is not
# taken for one of the relay's: JSON records have their id and time in that.
_PROOF_BYTES: Final = 64

_ADVICE: Final = {
    errno.ENOENT: "create the directory, writable for the relay's user",
    errno.ENOTDIR: "check `path`: a part of it is not a directory",
    errno.EISDIR: "give `path` the name of a file in that directory",
    errno.ENXIO: "`path` must be a regular file",
    errno.EACCES: "let the relay's user write there",
    errno.EPERM: "let the relay's user write there",
    errno.EROFS: "mount it writable; under systemd add the directory to `ReadWritePaths=`",
    errno.ELOOP: "`path` is a symbolic link, or links lead in a circle: name the file itself",
    errno.ENAMETOOLONG: "choose a shorter `path`",
    errno.EFBIG: "choose a smaller `rotate_size`: the file system takes no larger file",
}
"""Errors that only a person can fix; all others (no room, a failing disk) may pass."""


def fault(path: Path, error: OSError) -> SinkWaits | SinkHolds:
    """The error to raise for one of the file system, with what to change."""
    said = f"{path}: {error.strerror or error}"
    advice = _ADVICE.get(error.errno or 0)
    return SinkWaits(said) if advice is None else SinkHolds(said, advice=advice)


def _opened(path: Path) -> int:
    # O_NONBLOCK: a named pipe without a reader would hang the open.
    # O_NOFOLLOW: a link that somebody put there could make the relay write anywhere.
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        made = os.open(path, flags | os.O_EXCL, MODE)
    except FileExistsError:
        return os.open(path, flags, MODE)
    try:
        # `siemrelay test` by root may be the first to write there.
        give_to_owner(made, path.parent)
    except OSError:
        os.close(made)
        raise
    return made


class ArchiveFile:
    """An open file that is written in whole lines. Only `sync` may run at the same time as
    `append`.

    `alone`: no other relay writes to it. If one does (the daemon, during `siemrelay test`), whole
    lines are appended, and the other process rotates. Nothing is cut off but the relay's own: a
    line that a crash left incomplete, once the record is written again.
    """

    def __init__(self, path: Path) -> None:
        """Open or create it. Raises SinkWaits or SinkHolds."""
        self.path = path
        try:
            self._descriptor = _opened(path)
        except OSError as error:
            raise fault(path, error) from error
        try:
            self.alone = self._lock()
            state = self._state()
            if not stat.S_ISREG(state.st_mode):
                raise SinkHolds(f"{path} is not a regular file", advice="give `path` another name")
            self._torn_bytes = self._incomplete_bytes() if self.alone else 0
            sync_directory(path.parent)
        except OSError as error:
            self.close()
            raise fault(path, error) from error
        except BaseException:
            self.close()
            raise
        self.written_at = state.st_mtime

    @property
    def size_bytes(self) -> int:
        """How large it is now. Raises OSError."""
        return self._state().st_size

    def append(self, data: bytes, now: float) -> None:
        """Write whole lines at the end; durable only after `sync`.

        Raises SinkWaits or SinkHolds: then nothing of them is left, unless others write there, too.
        """
        self._still_there()
        self.settle_end(data)
        before, view = self.size_bytes, memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            written = len(data) - len(view)
            if self.alone and written and self.size_bytes == before + written:
                with suppress(OSError):  # the next opening deals with it
                    os.ftruncate(self._descriptor, before)
            raise fault(self.path, error) from error
        self.written_at = now

    def settle_end(self, data: bytes) -> None:
        """Deal with the incomplete line that the file ended in when it was opened.

        `data`: what is written next. If one of its lines begins so, the incomplete one is what a
        crash left of it, and is cut off; else it is left, and ended. Raises SinkWaits, SinkHolds.
        """
        if not self._torn_bytes:
            return
        torn, self._torn_bytes = self._torn_bytes, 0
        try:
            end = self.size_bytes - torn
            line = os.pread(self._descriptor, torn, end) if torn <= len(data) else b""
            if len(line) >= _PROOF_BYTES and (data.startswith(line) or b"\n" + line in data):
                os.ftruncate(self._descriptor, end)
                os.fsync(self._descriptor)
                _log.warning("archive ended in a torn line, whose record is written again",
                             path=str(self.path), bytes=torn)  # fmt: skip
            else:
                os.write(self._descriptor, b"\n")
                _log.warning("archive ended in an incomplete line, which is left as it is",
                             path=str(self.path), bytes=torn,
                             advice="let nobody else write to this file")  # fmt: skip
        except OSError as error:
            self._torn_bytes = torn
            raise fault(self.path, error) from error

    def sync(self) -> None:
        """Make everything that was appended before this call durable.

        Raises SinkWaits or SinkHolds: what was appended since the last `sync` counts as lost.
        """
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise fault(self.path, error) from error
        self._still_there()

    def close(self) -> None:
        """Close it; what was not synced may be lost."""
        os.close(self._descriptor)

    def _still_there(self) -> None:
        # Otherwise events in a deleted file would be confirmed.
        own = self._state()
        try:
            named = self.path.stat()
        except FileNotFoundError:
            named = None
        except OSError as error:
            raise fault(self.path, error) from error
        if named is None or not os.path.samestat(own, named):
            raise SinkWaits(f"{self.path} was moved or deleted; a new one is begun")

    def _state(self) -> os.stat_result:
        return os.fstat(self._descriptor)

    def _lock(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _incomplete_bytes(self) -> int:
        """How long the line is in which the file ends without a line feed."""
        size = end = self._state().st_size
        while end > 0:
            start = max(0, end - _TAIL_BYTES)
            found = os.pread(self._descriptor, end - start, start).rfind(b"\n")
            if found >= 0:
                return size - (start + found + 1)
            end = start
        return size
