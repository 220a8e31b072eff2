"""The buffer's operations on disk: synchronous, one transaction each, called from worker threads.

Writers hold the lock of `DiskBuffer`; the reader has a connection of its own.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, Final

import msgspec

from siemrelay.buffer import dead_letters as dead_letters
from siemrelay.buffer.dead_letters import DeadLetter
from siemrelay.buffer.reserve import LARGE
from siemrelay.buffer.rows import Payloads, StoredCursor, used_bytes
from siemrelay.buffer.sqlite.errors import SqliteErrors
from siemrelay.buffer.sqlite.files import are_in_place, create, identities, rewrite
from siemrelay.buffer.sqlite.opened import (
    note_removed,
    rename_sinks,
    rename_source,
)
from siemrelay.buffer.sqlite.reader import Reader
from siemrelay.buffer.sqlite.schema import (
    BUSY_TIMEOUT_S,
    WRITE_CURSORS,
    AppendedRow,
    append_statement,
    connect,
    prepare,
    prepare_append,
)
from siemrelay.core.errors import BufferFull, BufferMoved
from siemrelay.core.event import Batch
from siemrelay.durable_files import sync_directory

# Rows stored by one statement: few sizes to prepare, far from SQLite's limit of variables.
_APPENDED_ROWS: Final = 16

_APPEND_ONE: Final = append_statement(1)

_SOURCE, _KEY, _VALUE, _CURSORS = map(
    AppendedRow._fields.index, ("source", "key", "value", "cursors")
)

# See `Store.close`.
_ABANDONED: Final = list[ExitStack]()

# Rows deleted in one transaction: bounds how long a commit of records can wait for it.
_DELETE_ROWS: Final = 256


class Store(Reader):
    """The SQLite file: writes, and what `Reader` reads.

    Every method raises BufferFull (DiskFull) or BufferBroken.
    """

    def __init__(
        self, path: Path, log_bytes: int = LARGE.log_bytes, *, busy_s: float = BUSY_TIMEOUT_S
    ) -> None:
        """`log_bytes`: see `reserve.Sizes`. Locks of other processes are waited for `busy_s`."""

        def connected(synchronous: str) -> sqlite3.Connection:
            made = connect(path, synchronous=synchronous, log_bytes=log_bytes, busy_s=busy_s)
            return opened.enter_context(closing(made))

        self._path, errors = path, SqliteErrors(path)
        create(path, log_bytes, errors)
        with ExitStack() as opened, errors.translated():
            self._records = connected("FULL")
            prepare(self._records, path)
            prepare_append(self._records)
            # The names of the database and its log: SQLite has made the log by now, and takes a
            # failed fsync of its name for done; checked by
            # test_after_a_failed_fsync_and_a_restart_a_power_cut_loses_nothing.
            sync_directory(path.parent)
            self._cursors, reading = connected("NORMAL"), connected("NORMAL")
            self._cursors.execute("PRAGMA wal_autocheckpoint = 0")  # see `save_cursors`
            reading.execute("PRAGMA query_only = ON")
            self._identities = identities(path)
            errors.watch_log()
            opened.callback(errors.close)
            self._opened = opened.pop_all()
        super().__init__(reading, errors, Payloads())
        self._saved = 0
        self.compress_ahead = self._payloads.compress_ahead

    def close(self) -> None:
        """Close all connections; the last one copies the write-ahead log into the database.

        Not when the files are no longer at their path: SQLite deletes its log by name when it
        closes, and the name may belong to another relay's buffer by now. Not after an I/O error
        either: the log may be whole in memory only, and a power cut in the middle of that copy
        would leave torn pages with nothing to repair them. The connections are then kept as they
        are until the process ends.
        """
        self._payloads.close()
        if self.io_failed:
            _ABANDONED.append(self._opened)
            return
        try:
            self.check_identity()
        except BufferMoved:
            _ABANDONED.append(self._opened)
            return
        with self._read_lock, self._errors.translated():
            self._opened.close()

    @property
    def io_failed(self) -> bool:
        """Whether the disk has failed: nothing may be written any more."""
        return self._errors.io_failed

    def check_identity(self) -> None:
        """Raise BufferMoved when the names of the files lead to other files than those opened."""
        if not are_in_place(self._identities):
            raise BufferMoved(
                f"{self._path} is not the file that this relay opened: state_dir was removed, "
                "renamed or replaced while the relay ran. Nothing was acknowledged since; move it "
                "back to go on where it was, and start the relay again"
            )

    def repair(self, next_sequence: int, cursors: Mapping[str, StoredCursor]) -> int:
        """Replace next sequence number and cursors; returns the used bytes, recounted. Fsynced."""
        with self._transaction() as execute:
            sizes = execute("SELECT coalesce(length(payload), 0) FROM batches")
            used = sum(used_bytes(size) for (size,) in sizes)
            facts = [("next_sequence", next_sequence), ("used_bytes", used)]
            execute("INSERT OR REPLACE INTO facts VALUES (?, ?), (?, ?)", [*facts[0], *facts[1]])
            execute("DELETE FROM cursors")
            execute(WRITE_CURSORS.format("?"), (_json(cursors),))
        return used

    def append(
        self,
        batches: Iterable[Batch],
        positions: Mapping[tuple[str, str], Mapping[str, Any] | None],
        cursors: Mapping[str, StoredCursor],
        filtered: Mapping[str, int],
    ) -> int:
        """Store records, their sources' positions and cursors in one transaction, fsynced.

        Returns the bytes they use. On an error nothing of it is stored, but for BufferMoved: then
        it is in a file that no start will find, and must not be acknowledged.
        """
        used, rows = 0, []
        for batch in batches:
            payload = self._payloads.packed(batch.payload)
            used += (size := used_bytes(len(payload)))
            rows.append([
                batch.first_sequence, batch.count, batch.source, batch.received_at, payload,
                batch.part or 0, len(batch.payload), size, "", "", "", "",
            ])  # fmt: skip
        for (source, key), value in positions.items():
            text = "" if value is None else _text(value)
            if rows and rows[-1][_SOURCE] == source and not rows[-1][_KEY]:
                rows[-1][_KEY : _VALUE + 1] = key, text
            else:
                rows.append([0, 0, source, 0.0, "", 0, 0, 0, key, text, "", ""])
        if cursors or filtered:
            counts = {f"filtered:{source}": count for source, count in filtered.items()}
            if not rows:
                rows.append([*AppendedRow()])
            rows[0][_CURSORS:] = _json(cursors) if cursors else "", _json(counts) if counts else ""
        if self._errors.fsync_failed:
            self._rewrite_log_after_failed_fsync()
        execute = self._records.execute
        if len(rows) == 1:
            try:
                execute(_APPEND_ONE, rows[0])
            except (sqlite3.Error, OSError) as error:
                raise self._errors.typed(error) from error
        elif rows:
            parts = [rows[i : i + _APPENDED_ROWS] for i in range(0, len(rows), _APPENDED_ROWS)]
            with self._errors.translated() if len(parts) == 1 else self._transaction():
                for part in parts:
                    execute(append_statement(len(part)), [*chain.from_iterable(part)])
        self.check_identity()
        return used

    def save_cursors(self, cursors: Mapping[str, StoredCursor]) -> None:
        """Store cursors without waiting for an fsync: a crash of the process loses none."""
        self._rewrite_log_after_failed_fsync()
        with self._errors.translated():
            self._cursors.execute(WRITE_CURSORS.format("?"), (_json(cursors),))
            # SQLite itself would hide a failed fsync. A save is two pages, the smallest log 64.
            self._saved += 1
            if self._saved % 32 == 0:
                self._cursors.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def replace_cursors(
        self, cursors: Mapping[str, StoredCursor], renamed: Mapping[str, str],
        removed: Mapping[str, int],
    ) -> None:  # fmt: skip
        """Make `cursors` the only ones: others stop holding records back. Fsynced.

        See `opened.rename_sinks` and `opened.note_removed`.
        """
        text = _json(cursors)
        with self._transaction() as execute:
            rename_sinks(execute, renamed)
            note_removed(execute, removed)
            execute("DELETE FROM cursors WHERE sink NOT IN (SELECT key FROM json_each(?))", (text,))
            execute(WRITE_CURSORS.format("?"), (text,))

    def rename_source(self, old: str, new: str) -> bool:
        """See `opened.rename_source`. Fsynced."""
        with self._transaction() as execute:
            return rename_source(execute, old, new)

    def store_dead_letters(
        self, letters: Iterable[DeadLetter], cursors: Mapping[str, StoredCursor]
    ) -> None:
        """Store dead letters and the cursors that pass them in one transaction, fsynced."""
        with self._transaction() as execute:
            dead_letters.write(execute, letters)
            execute(WRITE_CURSORS.format("?"), (_json(cursors),))

    def drop_letters(
        self, sink: str, sequences: Collection[int], *, delivered: bool = False
    ) -> None:
        """See `dead_letters.drop`. Fsynced.

        `delivered`: they are counted as such, but for those refused before counting began.
        """
        with self._transaction() as execute:
            dead_letters.drop(execute, sink, sequences)
            if delivered:
                execute(
                    "UPDATE cursors SET retried = retried + (SELECT count(*) FROM json_each(?)"
                    " WHERE value >= first_sequence) WHERE sink = ?",
                    (_json(sequences), sink),
                )

    def count_replayed(self, sink: str, records: int) -> None:
        """Count records that were delivered to the sink again. Fsynced."""
        with self._transaction() as execute:
            add = "UPDATE cursors SET replayed = replayed + ? WHERE sink = ?"
            execute(add, (records, sink))

    # -- deleting ---------------------------------------------------------

    def delete(
        self, before: int, received_before: float, cursors: Mapping[str, StoredCursor]
    ) -> int:
        """Delete batches wholly below `before` and received before that time; returns bytes freed.

        Stores these cursors in the same transaction.
        At most `_DELETE_ROWS` at a time; 0 means there was nothing to delete.
        """
        with self._transaction() as execute:
            if cursors:
                execute(WRITE_CURSORS.format("?"), (_json(cursors),))
            rows = execute(
                "SELECT first_sequence, coalesce(length(payload), 0) FROM batches"
                " WHERE first_sequence + count <= ? AND received_at < ?"
                " ORDER BY first_sequence LIMIT ?",
                (before, received_before, _DELETE_ROWS),
            ).fetchall()
            if rows:
                execute("DELETE FROM batches WHERE first_sequence BETWEEN ? AND ? "
                        "AND received_at < ?",
                        (rows[0][0], rows[-1][0], received_before))  # fmt: skip
                freed = sum(used_bytes(size) for _, size in rows)
                execute("UPDATE facts SET value = value - ? WHERE name = 'used_bytes'", (freed,))
        if rows:
            # The deletion is complete, whether or not there is room for this.
            with suppress(BufferFull), self._errors.translated():
                # Give some free pages back to the file system; new records reuse the rest.
                # 4 MiB at a time keeps the transaction short.
                self._records.execute("PRAGMA incremental_vacuum(256)").fetchall()
        return sum(used_bytes(size) for _, size in rows)

    def free_pages(self) -> int:
        """The number of unused pages in the file."""
        with self._errors.translated():
            (count,) = self._records.execute("PRAGMA freelist_count").fetchone()
            return int(count)

    def vacuum(self) -> bool:
        """Give some free pages back to the file system; returns whether there were any.

        1 MiB at a time: pages moved by it go through the log, which needs room itself.
        """
        before = self.free_pages()
        with self._errors.translated():
            self._records.execute("PRAGMA incremental_vacuum(64)").fetchall()
        return self.free_pages() < before

    def shrink_log(self) -> None:
        """Copy the write-ahead log into the database and cut it: room on a full file system."""
        self._rewrite_log_after_failed_fsync()
        with self._errors.translated():
            self._records.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    # -- writing ----------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        self._rewrite_log_after_failed_fsync()
        with self._errors.transaction(self._records) as execute:
            yield execute

    def _rewrite_log_after_failed_fsync(self) -> None:
        """After an fsync that failed for lack of room; see `files.rewrite`."""
        if self._errors.fsync_failed:
            with self._errors.translated():
                rewrite(self._records, self._path)
            self._errors.fsync_failed = False


_encode: Final = msgspec.json.Encoder().encode


def _json(value: object) -> str:
    return _encode(value).decode()


def _text(position: Mapping[str, Any]) -> str:
    try:
        return _encode(position).decode()
    except UnicodeEncodeError:  # the name of a file need not be UTF-8
        return json.dumps(position)
