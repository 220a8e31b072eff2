"""The buffer's operations on disk: synchronous, one transaction each, called from worker threads.

Writers hold the lock of `DiskBuffer`; the reader has a connection of its own.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
import zstandard

from siemrelay.buffer.schema import connect, prepare, typed
from siemrelay.errors import BufferFull
from siemrelay.event import Batch

_log = structlog.get_logger()

# Level 1: measured best of bytes saved against time, since the disk is slower than the core.
_ZSTD_LEVEL: Final = 1

# What a row costs beside its payload. Small rows share a page; one that spills over has pages of
# its own, the last of them half empty on average.
_ROW_BYTES: Final = 96
_SPILLED_ROW_BYTES: Final = 8192
_SPILL_BYTES: Final = 4096

# Rows deleted in one transaction: bounds how long a commit of records can wait for it.
_DELETE_ROWS: Final = 256

_COLUMNS: Final = "first_sequence, count, source, received_at, payload, part, raw_size"


class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """One record that one sink's peer will never take, with the peer's own words."""

    sink: str
    sequence: int
    at: float
    code: str
    reason: str
    record: bytes
    message: bytes


class Opened(msgspec.Struct, frozen=True):
    """What was on disk at the start."""

    next_sequence: int
    cursors: dict[str, int]
    used_bytes: int


class Store:
    """The SQLite file. Every method raises BufferFull (DiskFull) or BufferBroken."""

    def __init__(self, path: Path) -> None:
        with ExitStack() as opened, _typed_errors():
            self._records = opened.enter_context(closing(connect(path, synchronous="FULL")))
            prepare(self._records, path)
            self._cursors = opened.enter_context(closing(connect(path, synchronous="NORMAL")))
            self._reading = opened.enter_context(closing(connect(path, synchronous="NORMAL")))
            self._reading.execute("PRAGMA query_only = ON")
            self._opened = opened.pop_all()
        # sqlite3 objects may move between threads, not be in two at once.
        self._read_lock = threading.Lock()
        self._compress = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).compress
        self._decompress = zstandard.ZstdDecompressor().decompress

    def close(self) -> None:
        """Close all connections; the last one copies the write-ahead log into the database."""
        with self._read_lock, _typed_errors():
            self._opened.close()

    def opened(self) -> Opened:
        """What a start needs to know."""
        with _typed_errors():
            query = self._records.execute
            facts = dict(query("SELECT name, value FROM facts").fetchall())
            cursors = dict(query("SELECT sink, next_sequence FROM cursors").fetchall())
            return Opened(facts["next_sequence"], cursors, facts["used_bytes"])

    def positions(self, source: str) -> dict[str, dict[str, Any]]:
        """The source's stored positions by key."""
        with self._read_lock, _typed_errors():
            rows = self._reading.execute(
                "SELECT key, value FROM positions WHERE source = ?", (source,)
            )
            return {key: json.loads(value) for key, value in rows}

    def append(
        self,
        batches: Iterable[Batch],
        positions: Mapping[tuple[str, str], Mapping[str, Any] | None],
        cursors: Mapping[str, int],
    ) -> int:
        """Store records, their sources' positions and cursors in one transaction, fsynced.

        Returns the bytes they use. On an error nothing of it is stored.
        """
        rows = [
            (b.first_sequence, b.count, b.source, b.received_at, self._compress(b.payload), b.part,
             len(b.payload))
            for b in batches
        ]  # fmt: skip
        used = 0
        with _transaction(self._records) as execute:
            for row in rows:
                execute(f"INSERT INTO batches ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            if rows:
                after = rows[-1][0] + rows[-1][1]
                execute("UPDATE facts SET value = ? WHERE name = 'next_sequence'", (after,))
                used = sum(_used_bytes(len(row[4])) for row in rows)
                execute("UPDATE facts SET value = value + ? WHERE name = 'used_bytes'", (used,))
            for (source, key), value in positions.items():
                if value is None:
                    execute("DELETE FROM positions WHERE source = ? AND key = ?", (source, key))
                else:
                    execute(
                        "INSERT OR REPLACE INTO positions VALUES (?, ?, ?)",
                        (source, key, json.dumps(value)),
                    )
            _write_cursors(execute, cursors)
        return used

    def save_cursors(self, cursors: Mapping[str, int]) -> None:
        """Store cursors without waiting for an fsync: a crash of the process loses none."""
        with _transaction(self._cursors) as execute:
            _write_cursors(execute, cursors)

    def keep_sinks(self, cursors: Mapping[str, int]) -> None:
        """Make `cursors` the only ones: others stop holding records back. Fsynced."""
        with _transaction(self._records) as execute:
            execute("DELETE FROM cursors")
            _write_cursors(execute, cursors)

    def bury(self, letters: Iterable[DeadLetter], cursors: Mapping[str, int]) -> None:
        """Store dead letters and the cursors that pass them in one transaction, fsynced."""
        with _transaction(self._records) as execute:
            for letter in letters:
                execute(
                    "INSERT OR REPLACE INTO dead_letters VALUES (?, ?, ?, ?, ?, ?, ?)",
                    msgspec.structs.astuple(letter),
                )
            _write_cursors(execute, cursors)

    def dead_letters(self) -> dict[str, int]:
        """How many dead letters each sink has."""
        with self._read_lock, _typed_errors():
            query = "SELECT sink, count(*) FROM dead_letters GROUP BY sink"
            return dict(self._reading.execute(query).fetchall())

    def read(self, sequence: int, before: int, limit_bytes: int) -> list[Batch]:
        """Batches from the one that holds `sequence` on, all below `before`, in order.

        At least one if there is one, about `limit_bytes` of records.
        """
        with self._read_lock, _typed_errors():
            rows = self._reading.execute(
                f"SELECT {_COLUMNS} FROM batches WHERE first_sequence >= coalesce("
                "(SELECT max(first_sequence) FROM batches WHERE first_sequence <= ?), 0)"
                " AND first_sequence + count > ? AND first_sequence < ? ORDER BY first_sequence",
                (sequence, sequence, before),
            )
            batches: list[Batch] = []
            for row in rows:
                batches.append(self._batch(row))
                limit_bytes -= row[6]
                if limit_bytes <= 0:
                    break
            return batches

    def _batch(self, row: tuple[Any, ...]) -> Batch:
        first, count, source, received_at, payload, part, size = row
        try:
            # A damaged header may ask for any amount of memory, or for none.
            if zstandard.frame_content_size(payload) == size:
                whole = self._decompress(payload, size)
                return Batch(first, count, source, received_at, whole, part)
        except (zstandard.ZstdError, TypeError):
            pass
        # The bytes rotted. The records are gone; that they were there must not be.
        _log.error(
            "records damaged on disk", source=source, first_sequence=first, records=count,
            advice="check the disk; each is sent as an Unparsed Record that says so",
        )  # fmt: skip
        lost = [b"record %d was damaged on disk\n" % n for n in range(first, first + count)]
        return Batch(first, count, source, received_at, b"".join(lost), part)

    def oldest(self) -> tuple[int, float] | None:
        """First sequence and received time of the oldest record kept."""
        with self._read_lock, _typed_errors():
            row: tuple[int, float] | None = self._reading.execute(
                "SELECT first_sequence, received_at FROM batches ORDER BY first_sequence LIMIT 1"
            ).fetchone()
            return row

    def received_at(self, sequence: int) -> float | None:
        """When the record with this sequence number, or the next one kept, was received."""
        with self._read_lock, _typed_errors():
            row = self._reading.execute(
                "SELECT received_at FROM batches WHERE first_sequence + count > ? "
                "AND first_sequence >= coalesce((SELECT max(first_sequence) FROM batches "
                "WHERE first_sequence <= ?), 0) ORDER BY first_sequence LIMIT 1",
                (sequence, sequence),
            ).fetchone()
            return row[0] if row else None

    def end_of_oldest(self, rows: int) -> int | None:
        """The sequence after the `rows` oldest batches, None when nothing is kept."""
        with self._read_lock, _typed_errors():
            ends = self._reading.execute(
                "SELECT first_sequence + count FROM batches ORDER BY first_sequence LIMIT ?",
                (rows,),
            ).fetchall()
            return ends[-1][0] if ends else None

    def delete(self, before: int, received_before: float) -> int:
        """Delete batches wholly below `before` and received before that time; returns bytes freed.

        At most `_DELETE_ROWS` at a time; 0 means there was nothing to delete.
        """
        with _transaction(self._records) as execute:
            rows = execute(
                "SELECT first_sequence, length(payload) FROM batches WHERE first_sequence + count"
                " <= ? AND received_at < ? ORDER BY first_sequence LIMIT ?",
                (before, received_before, _DELETE_ROWS),
            ).fetchall()
            if rows:
                execute("DELETE FROM batches WHERE first_sequence BETWEEN ? AND ? "
                        "AND received_at < ?",
                        (rows[0][0], rows[-1][0], received_before))  # fmt: skip
                freed = sum(_used_bytes(size) for _, size in rows)
                execute("UPDATE facts SET value = value - ? WHERE name = 'used_bytes'", (freed,))
        if rows:
            # The rows are gone whether or not there is room for this.
            with suppress(BufferFull), _typed_errors():
                # A part of the free pages goes back to the file system; records reuse the rest.
                # 4 MiB at a time keeps the transaction short.
                self._records.execute("PRAGMA incremental_vacuum(256)").fetchall()
        return sum(_used_bytes(size) for _, size in rows)

    def shrink_log(self) -> None:
        """Copy the write-ahead log into the database and cut it: room on a full file system."""
        with _typed_errors():
            self._records.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _used_bytes(payload_bytes: int) -> int:
    """About what a row with so much payload takes of the file."""
    return payload_bytes + (_SPILLED_ROW_BYTES if payload_bytes > _SPILL_BYTES else _ROW_BYTES)


def _write_cursors(execute: Any, cursors: Mapping[str, int]) -> None:
    for sink, next_sequence in cursors.items():
        execute("INSERT OR REPLACE INTO cursors VALUES (?, ?)", (sink, next_sequence))


@contextmanager
def _typed_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise typed(error) from error


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[Any]:
    with _typed_errors():
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection.execute
            connection.execute("COMMIT")
        except BaseException:
            # A failed COMMIT on a full disk may have rolled back by itself.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
