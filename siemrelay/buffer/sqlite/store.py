"""The buffer's operations on disk: synchronous, one transaction each, called from worker threads.

Writers hold the lock of `DiskBuffer`; the reader has a connection of its own.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from itertools import chain, starmap
from pathlib import Path
from typing import Any, Final

import msgspec

from siemrelay.buffer import dead_letters as dead_letters
from siemrelay.buffer.dead_letters import DeadLetter
from siemrelay.buffer.reserve import LARGE
from siemrelay.buffer.rows import COLUMNS, Payloads, Row, StoredCursor, used_bytes
from siemrelay.buffer.sqlite.errors import SqliteErrors
from siemrelay.buffer.sqlite.files import are_in_place, create, identities, rewrite
from siemrelay.buffer.sqlite.opened import (
    OLDEST,
    Opened,
    note_removed,
    read_cursors,
    read_opened,
    read_position,
    rename_sinks,
    rename_source,
)
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

# Rows stored by one statement: few sizes to prepare, far from SQLite's limit of variables.
_APPENDED_ROWS: Final = 16

# See `Store.close`.
_ABANDONED: Final = list[ExitStack]()

# Rows deleted in one transaction: bounds how long a commit of records can wait for it.
_DELETE_ROWS: Final = 256


class Store:
    """The SQLite file. Every method raises BufferFull (DiskFull) or BufferBroken."""

    def __init__(
        self, path: Path, log_bytes: int = LARGE.log_bytes, *, busy_s: float = BUSY_TIMEOUT_S
    ) -> None:
        """`log_bytes`: see `reserve.Sizes`. Locks of other processes are waited for `busy_s`."""

        def connected(synchronous: str) -> sqlite3.Connection:
            made = connect(path, synchronous=synchronous, log_bytes=log_bytes, busy_s=busy_s)
            return opened.enter_context(closing(made))

        self._path, self._errors = path, SqliteErrors(path)
        create(path, log_bytes, self._errors)
        with ExitStack() as opened, self._errors.translated():
            self._records = connected("FULL")
            prepare(self._records, path)
            prepare_append(self._records)
            self._cursors, self._reading = connected("NORMAL"), connected("NORMAL")
            self._cursors.execute("PRAGMA wal_autocheckpoint = 0")  # see `save_cursors`
            self._reading.execute("PRAGMA query_only = ON")
            self._identities = identities(path)
            self._errors.watch_log()
            opened.callback(self._errors.close)
            self._opened = opened.pop_all()
        # A connection may be used by different threads, but by one at a time.
        self._read_lock = threading.Lock()
        self._payloads, self._saved = Payloads(), 0
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

    def opened(self) -> Opened:
        """The state that a start reads."""
        with self._snapshot() as query:
            return read_opened(query)

    def repair(self, next_sequence: int, cursors: Mapping[str, StoredCursor]) -> int:
        """Replace next sequence number and cursors; returns the used bytes, recounted. Fsynced."""
        with self._transaction() as execute:
            sizes = execute("SELECT length(payload) FROM batches")
            used = sum(used_bytes(size) for (size,) in sizes)
            facts = [("next_sequence", next_sequence), ("used_bytes", used)]
            execute("INSERT OR REPLACE INTO facts VALUES (?, ?), (?, ?)", [*facts[0], *facts[1]])
            execute("DELETE FROM cursors")
            execute(WRITE_CURSORS.format("?"), (_json(cursors),))
        return used

    def cursors(self) -> dict[str, StoredCursor | None]:
        """Every sink's cursor and counts; None for a damaged one."""
        with self._read_lock, self._errors.translated():
            return read_cursors(self._reading.execute)

    def positions(self, source: str) -> dict[str, dict[str, Any]]:
        """The source's stored positions by key. A damaged one is left out, and logged."""
        with self._read_lock, self._errors.translated():
            rows = self._reading.execute(
                "SELECT key, value FROM positions WHERE source = ?", (source,)
            )
            return dict(filter(None, starmap(partial(read_position, source), rows)))

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
        used, rows = 0, list[AppendedRow]()
        for row in map(self._payloads.row, batches):
            used += (size := used_bytes(len(row.payload)))
            rows.append(AppendedRow(*row[:5], row.part or 0, row.raw_size, size))
        for (source, key), value in positions.items():
            text = "" if value is None else _text(value)
            rows.append(AppendedRow(source=source, key=key, value=text))
        if cursors:
            rows.append(AppendedRow(cursors=_json(cursors)))
        if filtered:
            counts = {f"filtered:{source}": count for source, count in filtered.items()}
            rows.append(AppendedRow(counts=_json(counts)))
        parts = [rows[i : i + _APPENDED_ROWS] for i in range(0, len(rows), _APPENDED_ROWS)]
        self._rewrite_log_after_failed_fsync()
        with self._errors.translated() if len(parts) == 1 else self._transaction():
            for part in parts:
                self._records.execute(append_statement(len(part)), [*chain.from_iterable(part)])
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

    def dead_letters(self) -> dict[str, int]:
        """The number of dead letters by sink."""
        with self._read_lock, self._errors.translated():
            return dead_letters.count(self._reading.execute)

    def letters(self, sink: str, first: int, before: int, limit: int) -> list[DeadLetter]:
        """See `letters.read`."""
        with self._read_lock, self._errors.translated():
            return dead_letters.read(self._reading.execute, sink, first, before, limit)

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

    def read(self, sequence: int, before: int, limit_bytes: int) -> list[Batch]:
        """Batches from the one that holds `sequence` on, all below `before`, in order.

        At least one if there is one, about `limit_bytes` of records.
        """
        with self._read_lock, self._errors.translated():
            rows = self._reading.execute(
                f"SELECT {COLUMNS} FROM batches WHERE first_sequence >= coalesce("
                "(SELECT max(first_sequence) FROM batches WHERE first_sequence <= ?), 0)"
                " AND first_sequence + count > ? AND first_sequence < ? ORDER BY first_sequence",
                (sequence, sequence, before),
            )
            batches: list[Batch] = []
            for row in map(Row._make, rows):
                batches.append(self._payloads.batch(row))
                limit_bytes -= row.raw_size
                if limit_bytes <= 0:
                    break
            return batches

    def alone(self, wanted: Set[int]) -> dict[int, Batch]:
        """Records as batches of one, by sequence number; without those no longer stored."""
        found: dict[int, Batch] = {}
        for sequence in sorted(wanted):
            if sequence not in found:  # otherwise found in the batch of an earlier one
                for batch in self.read(sequence, sequence + 1, 1):
                    found |= {one.first_sequence: one for one in batch.alone(wanted)}
        return found

    def oldest(self) -> tuple[int, float] | None:
        """First sequence and received time of the oldest record kept."""
        with self._read_lock, self._errors.translated():
            row: tuple[int, float] | None = self._reading.execute(OLDEST).fetchone()
            return row

    def received_at(self, sequence: int) -> float | None:
        """When the record with this sequence number, or the next one kept, was received."""
        with self._read_lock, self._errors.translated():
            row = self._reading.execute(
                "SELECT received_at FROM batches WHERE first_sequence + count > ? "
                "AND first_sequence >= coalesce((SELECT max(first_sequence) FROM batches "
                "WHERE first_sequence <= ?), 0) ORDER BY first_sequence LIMIT 1",
                (sequence, sequence),
            ).fetchone()
            return row[0] if row else None

    def received_after(self, moment: float) -> int | None:
        """The first record of those received then or later; None if there are none."""
        with self._read_lock, self._errors.translated():
            query = "SELECT min(first_sequence) FROM batches WHERE received_at >= ?"
            row: tuple[int | None] = self._reading.execute(query, (moment,)).fetchone()
            return row[0]

    def ends_of_oldest(self, rows: int) -> list[int]:
        """The sequence numbers after each of the `rows` oldest batches, in order."""
        with self._read_lock, self._errors.translated():
            ends = self._reading.execute(
                "SELECT first_sequence + count FROM batches ORDER BY first_sequence LIMIT ?",
                (rows,),
            ).fetchall()
            return [end for (end,) in ends]

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

    @contextmanager
    def _snapshot(self) -> Iterator[Any]:
        """Queries that see one state of the file."""
        with self._read_lock, self._errors.transaction(self._reading, "DEFERRED") as execute:
            yield execute

    def _rewrite_log_after_failed_fsync(self) -> None:
        """After an fsync that failed for lack of room; see `files.rewrite`."""
        if self._errors.fsync_failed:
            with self._errors.translated():
                rewrite(self._records, self._path)
            self._errors.fsync_failed = False


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _text(position: Mapping[str, Any]) -> str:
    try:
        return _json(position)
    except UnicodeEncodeError:  # the name of a file need not be UTF-8
        return json.dumps(position)
