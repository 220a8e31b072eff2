"""The database and its write-ahead log as files, where SQLite takes for granted what it wrote."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Final

from siemrelay.buffer.sqlite.errors import SqliteErrors
from siemrelay.buffer.sqlite.schema import BUSY_TIMEOUT_S, connect
from siemrelay.durable_files import sync

_CHUNK_BYTES: Final = 1 << 20

_SQLITE_MAKES: Final = ("", "-journal", "-wal", "-shm")


def create(path: Path, log_bytes: int, errors: SqliteErrors) -> None:
    """Make a database without tables for this user alone (0600), if there is none.

    SQLite gives the write-ahead log and its index the same mode. The database gets its name only
    when it is whole on disk: SQLite ignores that a directory cannot be written, so a power cut
    while it makes a file could leave torn pages without the journal that repairs them (checked by
    test_after_a_failed_fsync_and_a_restart_a_power_cut_loses_nothing). The caller fsyncs the name.

    Call it before the first `connect`, never after: closing any descriptor of a file drops this
    process's POSIX locks on it, SQLite's among them. Another process would then take itself for the
    last user of the database and delete the write-ahead log, with every record that the relay
    acknowledges from then on
    (checked by test_another_process_that_closes_the_file_leaves_the_log_in_place).

    Raises OSError for a file that is there and may not be opened, else BufferFull, BufferBroken.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        with errors.translated():
            _create(path, log_bytes)


def _create(path: Path, log_bytes: int) -> None:
    new = path.with_name(f"{path.name}.new")
    for kind in _SQLITE_MAKES:  # an earlier process may have been killed here
        Path(f"{new}{kind}").unlink(missing_ok=True)
    os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    # A power cut until the file has its name loses nothing but the file.
    with closing(connect(new, synchronous="OFF", log_bytes=log_bytes, busy_s=BUSY_TIMEOUT_S)):
        pass  # no tables: they would be in a log, and to close it reports no error
    sync(new, os.O_RDWR)
    new.rename(path)  # `Store` fsyncs the directory, at every start


def rewrite(connection: sqlite3.Connection, database: Path) -> None:
    """Write the log, if there is one, to disk again as it reads now, and fsync it.

    After a failed fsync the log may be whole in the kernel's memory only: its pages count as clean,
    and no later fsync writes them. Records appended behind such pages would be lost with them when
    the power fails, and a copy of them into the database could be torn with nothing to repair it.
    Written again they are dirty again; checked by
    test_after_a_failed_fsync_and_a_restart_a_power_cut_loses_nothing.

    Holds the lock of writers meanwhile. Raises OSError, sqlite3.Error.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        with open(f"{database}-wal", "r+b", buffering=0) as log:
            at = 0
            while chunk := log.read(_CHUNK_BYTES):
                os.pwrite(log.fileno(), chunk, at)
                at += len(chunk)
            os.fsync(log.fileno())
    except FileNotFoundError:
        pass
    finally:
        connection.execute("ROLLBACK")


Identity = tuple[str, int, int]
"""A path, and the device and the inode of the file there."""


def identities(path: Path) -> list[Identity]:
    """Those of the database and of its log, where there is one."""
    files = (path, path.with_name(f"{path.name}-wal"))
    found = ((str(file), file.stat()) for file in files if file.exists())
    return [(file, status.st_dev, status.st_ino) for file, status in found]


def are_in_place(files: Iterable[Identity]) -> bool:
    """Whether the paths still lead to these files. Asked after every commit."""
    try:
        for path, device, inode in files:
            found = os.stat(path)  # noqa: PTH116 - at every commit, in a third of Path.stat's time
            if found.st_ino != inode or found.st_dev != device:
                return False
    except OSError:
        return False
    return True
