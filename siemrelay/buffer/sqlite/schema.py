"""The buffer's file: its tables, and how connections are set up and used.

An operator can open the file with `sqlite3` while the relay runs.
"""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, closing
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from siemrelay.buffer.rows import CURSOR_COLUMNS, StoredCursor
from siemrelay.core.errors import StartRefused

SCHEMA_VERSION: Final = 4

_TABLES: Final = """
CREATE TABLE batches (
    first_sequence INTEGER PRIMARY KEY,  -- of the first record; the others follow by one
    count INTEGER NOT NULL,
    source TEXT NOT NULL,
    received_at REAL NOT NULL,           -- seconds since the epoch
    part INTEGER,                        -- the piece of an over-long record, from 1
    raw_size INTEGER NOT NULL,           -- bytes before compression
    payload BLOB NOT NULL                -- zstd of the records, each ended by LF
);
CREATE TABLE positions (
    source TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,  -- JSON, the source's own
    PRIMARY KEY (source, key)
) WITHOUT ROWID;
CREATE TABLE cursors (                   -- what became of the records from first_sequence on:
    sink TEXT PRIMARY KEY,               -- the counts add up to next_sequence - first_sequence
    next_sequence INTEGER NOT NULL,      -- every record before it is settled for this sink
    first_sequence INTEGER NOT NULL,
    delivered INTEGER NOT NULL, duplicates INTEGER NOT NULL, filtered INTEGER NOT NULL,
    refused INTEGER NOT NULL, dropped INTEGER NOT NULL, lost INTEGER NOT NULL,
    last_success_at REAL NOT NULL,       -- seconds since the epoch
    retried INTEGER NOT NULL, replayed INTEGER NOT NULL, -- counted by commands beside the relay
    stream TEXT NOT NULL                 -- of a sink with `seal:`, base64 of a msgpack
) WITHOUT ROWID;
CREATE TABLE dead_letters (
    sink TEXT NOT NULL, sequence INTEGER NOT NULL,
    at REAL NOT NULL, code TEXT NOT NULL, reason TEXT NOT NULL,  -- from the receiver
    record BLOB NOT NULL, message BLOB NOT NULL,                 -- as received, as sent
    source TEXT NOT NULL DEFAULT '', received_at REAL NOT NULL DEFAULT 0, part INTEGER,
    PRIMARY KEY (sink, sequence)
) WITHOUT ROWID;
CREATE INDEX dead_letters_of ON dead_letters (sink);  -- to count them without their records
CREATE TABLE facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO facts VALUES ('next_sequence', 1), ('used_bytes', 0);
-- for each source: 'records:NAME' and 'bytes:NAME' stored, 'filtered:NAME' left out by its events;
-- for each sink whose place is kept though it is not configured: 'removed:NAME', since when
"""

# The statements that migrate a layout to the next. Columns are added behind the others: queries
# name the columns that they need.
_CHANGES: Final = {
    1: """
ALTER TABLE dead_letters ADD COLUMN source TEXT NOT NULL DEFAULT '';
ALTER TABLE dead_letters ADD COLUMN received_at REAL NOT NULL DEFAULT 0;
ALTER TABLE dead_letters ADD COLUMN part INTEGER;
CREATE INDEX dead_letters_of ON dead_letters (sink);
""",
    2: """
ALTER TABLE cursors ADD COLUMN first_sequence INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursors ADD COLUMN delivered INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursors ADD COLUMN duplicates INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursors ADD COLUMN filtered INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursors ADD COLUMN refused INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursors ADD COLUMN dropped INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursors ADD COLUMN lost INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursors ADD COLUMN last_success_at REAL NOT NULL DEFAULT 0;
ALTER TABLE cursors ADD COLUMN retried INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursors ADD COLUMN replayed INTEGER NOT NULL DEFAULT 0;
UPDATE cursors SET next_sequence = max(next_sequence, coalesce(
    (SELECT min(first_sequence) FROM batches),
    (SELECT value FROM facts WHERE name = 'next_sequence'), 1));
UPDATE cursors SET first_sequence = next_sequence;
""",
    3: "ALTER TABLE cursors ADD COLUMN stream TEXT NOT NULL DEFAULT '';\n",
}

# Stores cursors given as a JSON object: sink → a `StoredCursor` as an array. What commands beside
# the relay count is only set for a new sink.
_OF_COMMANDS: Final = ("retried", "replayed")
_ELEMENTS: Final = ", ".join(
    f"json_extract(value, '$[{i}]')" for i in range(len(StoredCursor.__struct_fields__))
)
_KEPT: Final = [name for name in StoredCursor.__struct_fields__ if name not in _OF_COMMANDS]
WRITE_CURSORS: Final = f"""
INSERT INTO cursors (sink, {CURSOR_COLUMNS})
SELECT key, {_ELEMENTS} FROM json_each({{}}) WHERE true
ON CONFLICT (sink) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _KEPT)}
"""


class AppendedRow(NamedTuple):
    """A row of the view `appended`, see below: of `batches`, and what is stored beside them.

    What a row lacks is no None: `sqlite3` looks for an adapter of each, which takes a microsecond.
    """

    first_sequence: int = 0
    records: int = 0
    source: str = ""
    received_at: float = 0.0
    payload: bytes | str = ""
    part: int = 0
    raw_size: int = 0
    used_bytes: int = 0
    key: str = ""
    value: str = ""
    cursors: str = ""
    counts: str = ""


# One statement stores rows, positions and cursors, so that SQLite makes it one transaction by
# itself. Before and after every statement the thread waits for Python's lock, which beside a busy
# event loop is the larger part of a commit. A row may hold records, a position of the same source
# (without a value the key is forgotten), cursors (see WRITE_CURSORS), and what is added to counts
# (a JSON object by name): a small commit is one row.
_APPENDING: Final = f"""
CREATE TEMP VIEW appended AS SELECT {", ".join(f"NULL AS {name}" for name in AppendedRow._fields)};
CREATE TEMP TRIGGER append_records INSTEAD OF INSERT ON appended WHEN new.records BEGIN
    INSERT INTO batches (first_sequence, count, source, received_at, payload, part, raw_size)
    VALUES (new.first_sequence, new.records, new.source, new.received_at, new.payload,
            nullif(new.part, 0), new.raw_size);
    INSERT INTO facts VALUES
        ('next_sequence', new.first_sequence + new.records), ('used_bytes', new.used_bytes),
        ('records:' || new.source, new.records), ('bytes:' || new.source, new.raw_size)
    ON CONFLICT (name) DO UPDATE SET
        value = iif(name = 'next_sequence', 0, value) + excluded.value;
END;
CREATE TEMP TRIGGER append_position INSTEAD OF INSERT ON appended WHEN new.value <> '' BEGIN
    INSERT INTO positions VALUES (new.source, new.key, new.value)
    ON CONFLICT DO UPDATE SET value = excluded.value;
END;
CREATE TEMP TRIGGER forget_position INSTEAD OF INSERT ON appended
WHEN new.key <> '' AND new.value = '' BEGIN
    DELETE FROM positions WHERE source = new.source AND key = new.key;
END;
CREATE TEMP TRIGGER append_cursors INSTEAD OF INSERT ON appended WHEN new.cursors <> '' BEGIN
    {WRITE_CURSORS.format("new.cursors")};
END;
CREATE TEMP TRIGGER append_counts INSTEAD OF INSERT ON appended WHEN new.counts <> '' BEGIN
    INSERT INTO facts SELECT key, value FROM json_each(new.counts) WHERE true
    ON CONFLICT (name) DO UPDATE SET value = value + excluded.value;
END;
"""

# Large pages: a compressed batch is some 100 KiB, and every overflow page costs a link.
PAGE_BYTES: Final = 16384

# Free pages are given back to the file system when that is asked for.
_INCREMENTAL: Final = 2

# Only this process writes to the file; a read transaction of another one is shorter than this.
BUSY_TIMEOUT_S: Final = 10.0


def connect(path: Path, *, synchronous: str, log_bytes: int, busy_s: float) -> sqlite3.Connection:
    """A connection with the buffer's settings.

    `synchronous` is FULL (fsync at commit), NORMAL, or OFF (no fsync at all). The write-ahead log
    is copied into the database when it has grown to `log_bytes`. Nothing is written if the file has
    the settings.
    """
    connection = sqlite3.connect(
        path, timeout=busy_s, isolation_level=None, check_same_thread=False
    )
    with ExitStack() as failing:
        failing.enter_context(closing(connection))  # a file that is no database
        connection.execute(f"PRAGMA synchronous = {synchronous}")  # of what follows, too
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        # To set it again would be a transaction with its fsync, at every connection.
        if connection.execute("PRAGMA auto_vacuum").fetchone() != (_INCREMENTAL,):
            connection.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {log_bytes // PAGE_BYTES}")
        connection.execute("PRAGMA temp_store = MEMORY")
        # Debian's SQLite overwrites deleted rows with zeros by default: it would write every record
        # twice, and deletion on a full disk would need as much room as it frees.
        connection.execute("PRAGMA secure_delete = OFF")
        failing.pop_all()
    return connection


def connect_read_only(path: Path) -> sqlite3.Connection:
    """A connection that changes no record, and leaves the write-ahead log behind when it closes."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Create the tables in a new file, or migrate an older layout.

    Raises StartRefused for a file that a newer siemrelay wrote.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        connection.executescript(
            f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
    elif version < SCHEMA_VERSION:
        changes = "".join(_CHANGES[older] for older in range(version, SCHEMA_VERSION))
        connection.executescript(
            f"BEGIN IMMEDIATE; {changes} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
    elif version > SCHEMA_VERSION:
        raise StartRefused(
            f"{path} was written by a newer siemrelay (layout {version}, this one knows "
            f"{SCHEMA_VERSION}); run the newer one, or set another `state_dir`"
        )


def prepare_append(connection: sqlite3.Connection) -> None:
    """Create the view `appended` for a connection that stores records."""
    connection.executescript(_APPENDING)


@cache
def append_statement(rows: int) -> str:
    """Inserts so many `AppendedRow`s into the view `appended`, given one after the other."""
    row = f"({', '.join('?' * len(AppendedRow._fields))})"
    return f"INSERT INTO appended VALUES {', '.join([row] * rows)}"
