"""The named rows of the buffer's file: cursors, positions, counts; read at a start, and renamed.

Nothing damaged in it ends the start.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import structlog

from siemrelay.buffer.rows import CURSOR_COLUMNS, StoredCursor
from siemrelay.telemetry.stats import SourceCounts

_log = structlog.get_logger()

Execute = Callable[..., Any]
"""A connection's `execute`."""

_REMOVED: Final = "removed:"
"""In `facts`, before the name of a sink whose place is kept: since when, in seconds."""

# Facts that count what a source has stored.
_COUNTED: Final = SourceCounts.__struct_fields__

# A damaged time is long ago.
OLDEST: Final = (
    "SELECT first_sequence, coalesce(CAST(received_at AS REAL), 0.0) FROM batches"
    " ORDER BY 1 LIMIT 1"
)


class Opened(msgspec.Struct, frozen=True):
    """The state on disk: next sequence number and used bytes are None where missing or damaged."""

    next_sequence: int | None
    cursors: dict[str, StoredCursor | None]
    used_bytes: int | None
    sources: dict[str, SourceCounts]
    oldest: tuple[int, float] | None
    """First sequence and received time of the oldest row."""
    rows_end: int | None
    """Sequence number after the newest row."""
    removed: dict[str, int] = {}
    """Sinks whose place is kept though they are not configured: since when, in seconds."""

    @property
    def end(self) -> int:
        """The sequence number after the last record, as far as it is known."""
        return max(self.next_sequence or 1, self.rows_end or 1)

    def sinks(self) -> dict[str, StoredCursor]:
        """The cursors that are not damaged."""
        return {name: cursor for name, cursor in self.cursors.items() if cursor is not None}


def read_opened(execute: Execute) -> Opened:
    """Read the state on disk, in the caller's transaction."""
    facts = {
        name: value
        for name, value in execute("SELECT name, value FROM facts")
        if isinstance(value, int) and value >= 0
    }
    newest = (
        "SELECT CAST(first_sequence + coalesce(count, 1) AS INTEGER) FROM batches"
        " ORDER BY first_sequence DESC"
    )
    (rows_end,) = execute(f"{newest} LIMIT 1").fetchone() or (None,)
    return Opened(
        facts.get("next_sequence"), read_cursors(execute), facts.get("used_bytes"),
        _source_counts(facts), execute(OLDEST).fetchone(), rows_end, _removed_sinks(facts),
    )  # fmt: skip


def read_cursors(execute: Execute) -> dict[str, StoredCursor | None]:
    """Every sink's cursor and counts; None for a damaged one."""
    rows = execute(f"SELECT sink, {CURSOR_COLUMNS} FROM cursors").fetchall()
    return {str(sink): _cursor(columns) for sink, *columns in rows}


def _cursor(columns: list[Any]) -> StoredCursor | None:
    try:
        return msgspec.convert(columns, StoredCursor)
    except msgspec.ValidationError:
        return None


def _source_counts(facts: Mapping[str, int]) -> dict[str, SourceCounts]:
    sources = dict[str, SourceCounts]()
    for name, value in facts.items():
        what, _, source = name.partition(":")
        if what in SourceCounts.__struct_fields__:
            setattr(sources.setdefault(source, SourceCounts()), what, value)
    return sources


def read_position(source: str, key: str, value: str) -> tuple[str, dict[str, Any]] | None:
    """A source's position by its key; None for a damaged one, which is logged."""
    try:
        # Unlike msgspec, `json` reads what stands for the bytes of a name that is not UTF-8.
        return key, msgspec.convert(json.loads(value), dict[str, Any])
    except ValueError:
        _log.error("a stored position is damaged", source=source, key=key,
                   advice="the source begins there as if it were new, which may send records "
                   "again; check the disk")  # fmt: skip
        return None


def rename_sinks(execute: Execute, renamed: Mapping[str, str]) -> None:
    """Give the cursors, counts and dead letters of sinks (old name → new) to their new names."""
    for old, new in renamed.items():
        execute(
            f"INSERT OR REPLACE INTO cursors (sink, {CURSOR_COLUMNS})"
            f" SELECT ?, {CURSOR_COLUMNS} FROM cursors WHERE sink = ?",
            (new, old),
        )
        execute("DELETE FROM cursors WHERE sink = ?", (old,))
        # A dead letter that the new name has of an earlier life stays; so does the other one.
        execute("UPDATE OR IGNORE dead_letters SET sink = ? WHERE sink = ?", (new, old))


def rename_source(execute: Execute, old: str, new: str) -> bool:
    """Give a source's positions and counts to its new name, if that has none; whether it did."""
    (stored,) = execute(
        "SELECT (SELECT count(*) FROM positions WHERE source = ?)"
        " + (SELECT count(*) FROM facts WHERE name IN (SELECT value FROM json_each(?)))",
        (new, json.dumps([f"{count}:{new}" for count in _COUNTED])),
    ).fetchone()
    if stored:
        return False
    execute("UPDATE positions SET source = ? WHERE source = ?", (new, old))
    for count in _COUNTED:
        execute("UPDATE facts SET name = ? WHERE name = ?", (f"{count}:{new}", f"{count}:{old}"))
    return True


def note_removed(execute: Execute, removed: Mapping[str, int]) -> None:
    """Note since when each sink is removed whose place is kept; forget all others."""
    execute("DELETE FROM facts WHERE substr(name, 1, ?) = ?", (len(_REMOVED), _REMOVED))
    execute(
        "INSERT INTO facts SELECT ? || key, value FROM json_each(?)",
        (_REMOVED, json.dumps(dict(removed))),
    )


def _removed_sinks(facts: Mapping[str, int]) -> dict[str, int]:
    """The sinks that `note_removed` stored."""
    return {
        name.removeprefix(_REMOVED): at for name, at in facts.items() if name.startswith(_REMOVED)
    }
