"""Reads what a damaged buffer still holds, and makes a new buffer of it.

SQLite reads what it can; where it gives up, every page is read by itself (`pages`). Compressed
records carry a checksum, so that a row is known to be whole or not wherever it was found.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from itertools import chain
from pathlib import Path
from typing import Any, Final

import msgspec

from siemrelay.buffer.dead_letters import DeadLetter
from siemrelay.buffer.rows import COLUMNS, CURSOR_COLUMNS, Payloads, Row, StoredCursor
from siemrelay.buffer.sqlite.hidden_records import find_hidden_records
from siemrelay.buffer.sqlite.leaves import RawRow
from siemrelay.buffer.sqlite.pages import Pages
from siemrelay.buffer.sqlite.schema import SCHEMA_VERSION, connect_read_only
from siemrelay.buffer.sqlite.store import Store
from siemrelay.buffer.watermark import HighWatermark
from siemrelay.durable_files import sync_directory

# What integrity_check reports at most: one damaged page may be hundreds of lines.
_MOST_FAULTS: Final = 20

# Sequence numbers beyond are damage: JSON readers count exactly up to here.
_MOST: Final = 1 << 53

_Shape = list[tuple[type, ...]]

_NUMBER, _TEXT = (int,), (str,)

# The tables without a rowid: columns in the order of the file, the types of their values, and how
# many of them are the key.
_TABLES: Final[dict[str, tuple[str, _Shape, int]]] = {
    "facts": ("name, value", [_TEXT, _NUMBER], 1),
    "cursors": (
        f"sink, {CURSOR_COLUMNS}",
        [_TEXT, *[_NUMBER] * 8, (int, float), _NUMBER, _NUMBER, _TEXT], 1,
    ),
    "positions": ("source, key, value", [_TEXT, _TEXT, _TEXT], 2),
    "dead_letters": (
        ", ".join(DeadLetter.__struct_fields__),
        [_TEXT, _NUMBER, (int, float), _TEXT, _TEXT, (bytes,), (bytes,), _TEXT, (int, float),
         (int, type(None))], 2,
    ),
}  # fmt: skip

# Of the table `batches`, whose first column is its rowid.
_BATCH: Final[_Shape] = [
    (type(None),), _NUMBER, _TEXT, (int, float), (int, type(None)), _NUMBER, (bytes,),
]  # fmt: skip


_DAMAGED: Final = "damaged"


class Gap(msgspec.Struct, frozen=True):
    """Records `first` to `last` that cannot be read: their row is missing, or its bytes damaged."""

    first: int
    last: int
    state: str

    def count(self, start: int = 0) -> int:
        """How many they are from `start` on."""
        return max(self.last - max(self.first, start) + 1, 0)


class Survey(msgspec.Struct):
    """The content of a buffer's file. `faults` is SQLite's own list, empty for a healthy file."""

    faults: list[str]
    end: int
    """The sequence number after the newest record."""
    cursors: dict[str, StoredCursor]
    records: int
    gaps: list[Gap]
    """The damage, and the records missing from the first one on that a sink waits for."""
    dead_letters: int
    positions: int

    @property
    def healthy(self) -> bool:
        """Whether nothing is damaged and no record is missing that a sink still waits for."""
        damaged = any(gap.state == _DAMAGED for gap in self.gaps)
        return not (self.faults or damaged or any(map(self.unreadable, self.cursors)))

    def unreadable(self, sink: str) -> int:
        """The records that the sink waits for and would not get."""
        cursor = self.cursors[sink].next_sequence
        return sum(gap.count(cursor) for gap in self.gaps)


class _Content(msgspec.Struct):
    """The content of a file. `tables`: the rows of each of `_TABLES`; `rows`: of `batches`."""

    faults: list[str]
    tables: dict[str, list[tuple[Any, ...]]]
    rows: Callable[[], Iterable[Row]]

    def cursors(self) -> dict[str, StoredCursor]:
        """Those that make sense."""
        found = dict[str, StoredCursor]()
        for sink, *columns in self.tables["cursors"]:
            with suppress(msgspec.ValidationError):
                found[sink] = msgspec.convert(columns, StoredCursor)
        return {sink: cursor for sink, cursor in found.items() if cursor.next_sequence > 0}


def survey(path: Path, *, quiet: bool) -> Survey:
    """Read what is readable in the file. Changes nothing.

    `quiet`: no relay runs on it, so that pages may be read beside SQLite. Raises OSError.
    """
    return _survey(path, _content(path, quiet=quiet))


def salvage(path: Path, new: Path) -> Survey:
    """Write everything readable into a new buffer file; says what is in that one then.

    No relay may run on either. Raises OSError, and what `Store` raises.
    """
    content = _content(path, quiet=True)
    found = _survey(path, content)
    for name in (new.name, f"{new.name}-wal", f"{new.name}-shm"):
        new.with_name(name).unlink(missing_ok=True)
    Store(new).close()
    with closing(sqlite3.connect(new)) as file:
        for name in ("facts", "positions", "dead_letters"):
            columns, shape, _ = _TABLES[name]
            places = ", ".join("?" * len(shape))
            insert = f"INSERT OR REPLACE INTO {name} ({columns}) VALUES ({places})"
            file.executemany(insert, content.tables[name])
        places = ", ".join("?" * len(Row._fields))
        payloads = Payloads()
        for row in content.rows():
            if not _plausible(row, found.end):
                continue
            # A damaged row stays, so that each of its records says that it was there, until a
            # whole one is found.
            rank = "REPLACE" if payloads.unpacked(row) is not None else "IGNORE"
            file.execute(f"INSERT OR {rank} INTO batches ({COLUMNS}) VALUES ({places})", row)
        file.commit()
    with closing(Store(new)) as store:
        store.repair(found.end, found.cursors)
    return survey(new, quiet=True)


def put_in_place(path: Path, new: Path) -> Path:
    """Make the new file the buffer; returns where the damaged one is kept, with its log."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    kept = path.with_name(f"{path.name}.damaged-{stamp}")
    log, kept_log = (each.with_name(f"{each.name}-wal") for each in (path, kept))
    os.link(path, kept)
    with suppress(FileNotFoundError):
        os.link(log, kept_log)
        log.unlink()  # it belongs to the damaged file: SQLite would apply it to the new one
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    if os.geteuid() == 0:  # the relay's user could not open what is root's
        owner = path.stat()
        os.chown(new, owner.st_uid, owner.st_gid)
    new.rename(path)
    for ending in ("-wal", "-shm"):  # empty: the last process that opened it could not remove them
        new.with_name(f"{new.name}{ending}").unlink(missing_ok=True)
    sync_directory(path.parent)
    return kept


# -- reading --------------------------------------------------------------


def _content(path: Path, *, quiet: bool) -> _Content:
    with closing(connect_read_only(path)) as connection:
        hidden = quiet and find_hidden_records(path, connection, _acknowledged_end(path))
        # What SQLite would say of the rest is about a moment long before.
        faults = [hidden.summary] if hidden else _faults(connection)
        if not faults:
            return _Content([], {
                name: connection.execute(f"SELECT {columns} FROM {name}").fetchall()
                for name, (columns, *_) in _TABLES.items()
            }, lambda: _rows_by_sqlite(path))  # fmt: skip
    if not quiet:
        return _Content(faults, {name: [] for name in _TABLES}, lambda: ())
    return _Content(faults, _tables_by_pages(path), lambda: _rows_by_pages(path))


def _acknowledged_end(path: Path) -> int:
    watermark = HighWatermark(path.parent).read()
    return 1 if watermark is None else watermark.end


def _faults(connection: sqlite3.Connection) -> list[str]:
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != SCHEMA_VERSION:
            return [f"its layout is {version}; this siemrelay knows {SCHEMA_VERSION}"]
        lines = connection.execute(f"PRAGMA integrity_check({_MOST_FAULTS})").fetchall()
    except sqlite3.Error as error:
        return [str(error)]
    return [] if lines == [("ok",)] else [str(line) for (line,) in lines]


def _rows_by_sqlite(path: Path) -> Iterator[Row]:
    with closing(connect_read_only(path)) as connection:
        yield from map(Row._make, connection.execute(f"SELECT {COLUMNS} FROM batches"))


def _tables_by_pages(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Rows from every page that looks like one of the tables'.

    A key that is found twice with different values is not trusted.
    """
    tables: dict[str, dict[Any, tuple[Any, ...] | None]] = {name: {} for name in _TABLES}
    with Pages(path) as pages:
        for name, key, values in _keyed(pages.rows("index")):
            known = tables[name].setdefault(key, values)
            tables[name][key] = values if known == values else None
        for name, key, values in _keyed(pages.doubtful_rows("index")):
            tables[name].setdefault(key, values)
    return {name: [row for row in rows.values() if row] for name, rows in tables.items()}


def _keyed(rows: Iterable[RawRow]) -> Iterator[tuple[str, tuple[Any, ...], tuple[Any, ...]]]:
    """The table, the key and the values of each row that fits one of `_TABLES`."""
    for row in rows:
        for name, (_, shape, key_columns) in _TABLES.items():
            if _fits(row.values, shape):
                yield name, tuple(row.values[:key_columns]), tuple(row.values)


def _rows_by_pages(path: Path) -> Iterator[Row]:
    with Pages(path) as pages:
        # A later row replaces an earlier one.
        for rowid, values in chain(pages.doubtful_rows("table"), pages.rows("table")):
            if rowid is not None and _fits(values, _BATCH):
                _, count, source, received_at, part, raw_size, payload = values
                yield Row(rowid, count, source, float(received_at), payload, part, raw_size)


def _fits(values: list[Any], shape: _Shape) -> bool:
    return len(values) == len(shape) and all(map(isinstance, values, shape))


# -- looking through ------------------------------------------------------


def _survey(path: Path, content: _Content) -> Survey:
    watermark = HighWatermark(path.parent).read()
    noted = {} if watermark is None else watermark.cursors
    cursors = {**noted, **content.cursors()}
    facts = dict(row[:2] for row in content.tables["facts"])
    end = max(facts.get("next_sequence", 1), 1 if watermark is None else watermark.end)
    payloads = Payloads()
    # In a temporary file: there may be millions of rows.
    with closing(sqlite3.connect("")) as index:
        index.execute("CREATE TABLE rows (first INTEGER PRIMARY KEY, next INTEGER, whole INTEGER)")
        for row in content.rows():
            if _plausible(row, end if end > 1 else _MOST):
                whole = payloads.unpacked(row) is not None
                index.execute(
                    f"INSERT OR {'REPLACE' if whole else 'IGNORE'} INTO rows VALUES (?, ?, ?)",
                    (row.first_sequence, row.first_sequence + row.records, whole),
                )
        newest, records = index.execute(
            "SELECT coalesce(max(next), 1), coalesce(sum((next - first) * whole), 0) FROM rows"
        ).fetchone()
        end = max(end, newest)
        first = min((cursor.next_sequence for cursor in cursors.values()), default=end)
        # What every sink has is kept for replay; where it is damaged, the disk is.
        query = "SELECT first, next FROM rows WHERE NOT whole AND next <= ? ORDER BY first"
        gaps = [
            Gap(one, following - 1, _DAMAGED) for one, following in index.execute(query, (first,))
        ]
        query = "SELECT first, next, whole FROM rows WHERE next > ? ORDER BY first"
        gaps += _gaps(index.execute(query, (first,)), first, end)
    letters, positions = content.tables["dead_letters"], content.tables["positions"]
    return Survey(content.faults, end, cursors, records, gaps, len(letters), len(positions))


def _plausible(row: Row, end: int) -> bool:
    """Whether the row can be one of records before `end`."""
    return row.is_sound and row.first_sequence > 0 and row.first_sequence + row.records <= end


def _gaps(rows: Iterable[tuple[int, int, int]], position: int, end: int) -> Iterator[Gap]:
    for first, following, whole in rows:
        if first > position:
            yield Gap(position, first - 1, "missing")
        if not whole:
            yield Gap(max(first, position), following - 1, _DAMAGED)
        position = max(position, following)
    if position < end:
        yield Gap(position, end - 1, "missing")
