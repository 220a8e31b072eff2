"""Acknowledged records that SQLite does not see, and overwrites, behind a damaged frame of its log.

A tail that a power cut has torn looks like damage and is none: nobody acknowledged what is in it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from siemrelay.buffer.sqlite.leaves import INDEX_LEAF, leaf_rows
from siemrelay.buffer.sqlite.write_ahead_log import Correction, WriteAheadLog

_END: Final = "next_sequence"


class HiddenRecords(NamedTuple):
    """Records `first` to `last`, which were acknowledged and which SQLite does not see."""

    first: int
    last: int
    damaged_at: int
    """Where the log is damaged, in bytes."""
    corrections: Sequence[Correction]
    """What makes the log whole; empty if nothing does."""

    @property
    def summary(self) -> str:
        """What has happened, for a person."""
        return (
            f"its write-ahead log is damaged at byte {self.damaged_at:,} or soon after, and SQLite "
            f"would overwrite acknowledged records behind it: {self.first:,} to {self.last:,}"
            f"{'; a start corrects it first' if self.corrections else ''}"
        )


def find_hidden_records(
    database: Path, connection: sqlite3.Connection, acknowledged_end: int
) -> HiddenRecords | None:
    """The acknowledged records behind a damaged frame of the log, if there are some.

    Call it before anybody may write to the database. `acknowledged_end` is the high watermark's.
    Raises OSError.
    """
    # Invariant: a commit of records is fsynced before it is acknowledged, and before another frame
    # is written. So a whole frame behind it proves, as the watermark does, that it is none of the
    # frames that a power cut may have taken; checked by
    # test_after_a_power_cut_at_any_point_everything_acknowledged_arrives.
    seen = _end_seen(connection)
    with WriteAheadLog(database) as log:
        # What costs nothing to speak of is enough for a healthy log.
        if acknowledged_end <= seen and all(_end_on(page) <= seen for page in log.pages()):
            return None
        damaged_at: int | None = None if log.whole_header else 0
        corrections, whole = [log.correction], log.whole_header or log.correction is not None
        # The end of the records in all transactions, and in those that corrections make whole.
        readable = correctable = 0
        end = committed = 0  # of those in the transaction being read, and in the one before
        proven_end = 0  # as `end`, since the last frame that is not proven
        for frame in log.frames():
            if damaged_at is None and not frame.intact:
                damaged_at, seen = frame.at, max(seen, readable)
            here = _end_on(frame.content)
            if frame.proven:
                acknowledged_end = max(acknowledged_end, committed)
                proven_end = max(proven_end, here)
            else:  # what is behind may be of an attempt that failed
                whole, committed, proven_end = False, 0, 0
            if whole:
                corrections.append(frame.correction)
            if frame.proven or here <= acknowledged_end:
                end = max(end, here)
            if frame.commits:
                readable, committed = max(readable, end), proven_end
                correctable = readable if whole else correctable
                end = proven_end = 0
    hidden_end = min(acknowledged_end, readable)
    if damaged_at is None or hidden_end <= seen:
        return None
    enough = [*filter(None, corrections)] if correctable >= hidden_end else []
    return HiddenRecords(seen, readable - 1, damaged_at, enough)


def _end_seen(connection: sqlite3.Connection) -> int:
    """The sequence number after the last record, as SQLite reads the database; 1 if it cannot."""
    try:
        row = connection.execute("SELECT value FROM facts WHERE name = ?", (_END,)).fetchone()
    except sqlite3.Error:
        return 1  # the tables may be in the log, too
    return row[0] if row is not None and isinstance(row[0], int) else 1


def _end_on(page: bytes) -> int:
    """The sequence number after the last record, if it is on this page; else 0."""
    if page[:1] != bytes([INDEX_LEAF]) or _END.encode() not in page:
        return 0
    for row in leaf_rows(page, 0, INDEX_LEAF):
        # Other tables have more columns: a dead letter may hold any bytes.
        if len(row.values) == 2 and row.values[0] == _END and isinstance(row.values[1], int):
            return row.values[1]
    return 0
