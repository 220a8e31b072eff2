"""The database and its write-ahead log as files, where SQLite takes for granted what it wrote."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

_CHUNK_BYTES: Final = 1 << 20


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


def identities(path: Path) -> dict[Path, tuple[int, int] | None]:
    """Device and inode of the database and of its log, where there is one."""
    files = (path, path.with_name(f"{path.name}-wal"))
    return {file: identity(file) for file in files if file.exists()}


def identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of the file at that path; None if there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - at every commit, in half of Path.stat's time
    except OSError:
        return None
    return found.st_dev, found.st_ino
