"""Queries of the buffer's file, on a connection of their own that no writer waits for."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Set
from contextlib import contextmanager
from functools import partial
from itertools import starmap
from typing import Any

from siemrelay.buffer import dead_letters as dead_letters
from siemrelay.buffer.dead_letters import DeadLetter
from siemrelay.buffer.rows import COLUMNS, Payloads, Row, StoredCursor
from siemrelay.buffer.sqlite.errors import SqliteErrors
from siemrelay.buffer.sqlite.opened import OLDEST, Opened, read_cursors, read_opened, read_position
from siemrelay.core.event import Batch


class Reader:
    """Queries. Every method raises BufferFull (DiskFull) or BufferBroken."""

    def __init__(
        self, reading: sqlite3.Connection, errors: SqliteErrors, payloads: Payloads
    ) -> None:
        """`reading` is used for queries alone."""
        self._reading, self._errors, self._payloads = reading, errors, payloads
        # A connection may be used by different threads, but by one at a time.
        self._read_lock = threading.Lock()

    def opened(self) -> Opened:
        """The state that a start reads."""
        with self._snapshot() as query:
            return read_opened(query)

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

    def dead_letters(self) -> dict[str, int]:
        """The number of dead letters by sink."""
        with self._read_lock, self._errors.translated():
            return dead_letters.count(self._reading.execute)

    def letters(self, sink: str, first: int, before: int, limit: int) -> list[DeadLetter]:
        """See `dead_letters.read`."""
        with self._read_lock, self._errors.translated():
            return dead_letters.read(self._reading.execute, sink, first, before, limit)

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

    @contextmanager
    def _snapshot(self) -> Iterator[Any]:
        """Queries that see one state of the file."""
        with self._read_lock, self._errors.transaction(self._reading, "DEFERRED") as execute:
            yield execute
