"""What is deleted from the buffer's file, and the room on disk that this makes."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import Final

from siemrelay.buffer.rows import used_bytes
from siemrelay.buffer.schema import transaction, typed_errors
from siemrelay.core.errors import BufferFull

# Rows deleted in one transaction: bounds how long a commit of records can wait for it.
_DELETE_ROWS: Final = 256


class Space:
    """On the connection that stores records: the callers hold its lock. Errors as `Store`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def delete(self, before: int, received_before: float) -> int:
        """Delete batches wholly below `before` and received before that time; returns bytes freed.

        At most `_DELETE_ROWS` at a time; 0 means there was nothing to delete.
        """
        with transaction(self._connection) as execute:
            rows = execute(
                "SELECT first_sequence, length(payload) FROM batches WHERE first_sequence + count"
                " <= ? AND received_at < ? ORDER BY first_sequence LIMIT ?",
                (before, received_before, _DELETE_ROWS),
            ).fetchall()
            if rows:
                execute("DELETE FROM batches WHERE first_sequence BETWEEN ? AND ? "
                        "AND received_at < ?",
                        (rows[0][0], rows[-1][0], received_before))  # fmt: skip
                freed = sum(used_bytes(size) for _, size in rows)
                execute("UPDATE facts SET value = value - ? WHERE name = 'used_bytes'", (freed,))
        if rows:
            # The rows are gone whether or not there is room for this.
            with suppress(BufferFull), typed_errors():
                # A part of the free pages goes back to the file system; records reuse the rest.
                # 4 MiB at a time keeps the transaction short.
                self._connection.execute("PRAGMA incremental_vacuum(256)").fetchall()
        return sum(used_bytes(size) for _, size in rows)

    def free_pages(self) -> int:
        """Pages of the file that hold nothing."""
        with typed_errors():
            (count,) = self._connection.execute("PRAGMA freelist_count").fetchone()
            return int(count)

    def vacuum(self) -> bool:
        """Give some free pages back to the file system; whether there were any.

        1 MiB at a time: what has to be moved for it goes through the log, which needs room itself.
        """
        before = self.free_pages()
        with typed_errors():
            self._connection.execute("PRAGMA incremental_vacuum(64)").fetchall()
        return self.free_pages() < before

    def shrink_log(self) -> None:
        """Copy the write-ahead log into the database and cut it: room on a full file system."""
        with typed_errors():
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
