"""Sorts errors of SQLite: no room for now, or a disk that failed."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from siemrelay.core.errors import BufferBroken, BufferFull, DiskFull

NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
"""A full file system, or a used-up quota: both may end while the relay runs."""

# A person may look into the file while the relay runs, and forget a transaction.
_HELD_BY_ANOTHER: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

# The log's index is a memory-mapped file: on a full file system it is its growth that fails.
_NO_ROOM_FOR_SHARED_MEMORY: Final = (sqlite3.SQLITE_IOERR_SHMSIZE,)

# SQLite calls only ENOSPC from a write a full disk. A used-up quota, and a file system that finds
# out at fsync that it has no room (NFS, thin volumes), look like a broken disk to it.
_PERHAPS_NO_ROOM: Final = (
    sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC,
    sqlite3.SQLITE_IOERR_TRUNCATE, sqlite3.SQLITE_IOERR_SHMOPEN, sqlite3.SQLITE_IOERR_SHMMAP,
    sqlite3.SQLITE_CANTOPEN,
)  # fmt: skip

# As much as a large group of records needs: less may fit where that did not.
_PROBE_BYTES: Final = 4 * 1024 * 1024
_PROBE_CHUNK_BYTES: Final = 256 * 1024


class SqliteErrors:
    """Turns errors of one buffer file into the buffer's own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log_descriptor: int | None = None
        self._translated = _Translated(self)
        self.fsync_failed = False
        """Whether an fsync has failed for lack of room; cleared by the caller that recovers."""
        self.io_failed = False
        """Whether the disk has failed otherwise: the content of the files is then unknown."""

    def watch_log(self) -> None:
        """Hold the write-ahead log open, to learn from the kernel why an fsync of it failed.

        The kernel reports a failed write-back once to every descriptor that was open then. Closing
        this one is safe: SQLite holds no POSIX locks on the log.
        """
        with suppress(OSError):
            log = f"{self._path}-wal"
            self._log_descriptor = os.open(log, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Close the log again."""
        if self._log_descriptor is not None:
            os.close(self._log_descriptor)
            self._log_descriptor = None

    def translated(self) -> _Translated:
        """Errors of SQLite and OSError leave the block as BufferFull, DiskFull or BufferBroken."""
        return self._translated

    @contextmanager
    def transaction(self, connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[Any]:
        """All of the block or nothing of it; gives the connection's `execute`. As `translated`."""
        with self.translated():
            connection.execute(f"BEGIN {kind}")
            try:
                yield connection.execute
                connection.execute("COMMIT")
            except BaseException:
                # A failed COMMIT on a full disk may have rolled back by itself.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def typed(self, error: sqlite3.Error | OSError) -> BufferFull | BufferBroken:
        """The buffer's own error for one of these: does room lack, or is the disk broken?"""
        if isinstance(error, OSError):
            if error.errno in NO_ROOM:
                return DiskFull("the file system of state_dir is full")
            self.io_failed = True
            return BufferBroken(
                f"the disk buffer failed: {error.strerror}; check the disk under state_dir"
            )
        code = getattr(error, "sqlite_errorcode", 0)
        if code & 0xFF in _HELD_BY_ANOTHER:
            return BufferFull("another process holds the buffer's file locked (an open sqlite3?)")
        if code & 0xFF == sqlite3.SQLITE_FULL:
            return DiskFull("the file system of state_dir is full")
        if code in _NO_ROOM_FOR_SHARED_MEMORY:
            return DiskFull("the file system of state_dir is full (write-ahead log)")
        if code in _PERHAPS_NO_ROOM and (why := self._lacks_room()):
            self.fsync_failed |= code == sqlite3.SQLITE_IOERR_FSYNC
            return DiskFull(why)
        if code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return BufferBroken(
                f"{self._path} is damaged ({error}); stop the relay, `siemrelay buffer check` says "
                "what can be read, and `siemrelay buffer salvage` saves it into a new file"
            )
        self.io_failed |= code & 0xFF == sqlite3.SQLITE_IOERR
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        return BufferBroken(
            f"the disk buffer failed: {error} ({name}); check the disk under state_dir"
        )

    def _lacks_room(self) -> str:
        """Why the file system takes no more data now; empty if it does."""
        for attempt in (self._fsync_log, self._write_probe):
            try:
                attempt()
            except OSError as error:
                if error.errno == errno.EDQUOT:
                    return "the disk quota of this user is used up in state_dir"
                if error.errno == errno.ENOSPC:
                    return "the file system of state_dir is full"
        return ""

    def _fsync_log(self) -> None:
        if self._log_descriptor is not None:
            os.fsync(self._log_descriptor)

    def _write_probe(self) -> None:
        probe = self._path.parent / "probe"
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            for _ in range(_PROBE_BYTES // _PROBE_CHUNK_BYTES):
                # Random: a file system that compresses would take any number of zeros.
                os.write(descriptor, os.urandom(_PROBE_CHUNK_BYTES))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            probe.unlink(missing_ok=True)


class _Translated:
    """See `SqliteErrors.translated`. A class, as a generator costs ten times as much per commit."""

    __slots__ = ("_errors",)

    def __init__(self, errors: SqliteErrors) -> None:
        self._errors = errors

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        if isinstance(error, sqlite3.Error | OSError):
            raise self._errors.typed(error) from error
