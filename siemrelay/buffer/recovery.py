"""Decides at a start where to go on, and which records are gone. Pure.

Invariants of a buffer that nothing but the relay has touched:
1. the newest row ends at `next_sequence`, or there is no row;
2. no cursor is beyond `next_sequence`;
3. no cursor is before the oldest row, as rows are deleted in one transaction with the cursors that
   allow it; without rows every cursor is at `next_sequence`;
4. `next_sequence` is not below the high watermark.
What breaks one of them proves that acknowledged records are gone, or that a value is damaged. When
in doubt a record is sent again. Sequence numbers are not used twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from siemrelay.buffer.rows import StoredCursor
from siemrelay.buffer.watermark import Watermark

# Numbers beyond are damage: JSON readers count exactly up to here.
_MOST: Final = 1 << 53


class FoundState(msgspec.Struct, frozen=True):
    """The state on disk. `next_sequence` and cursors are None where they are missing or damaged."""

    next_sequence: int | None
    cursors: Mapping[str, StoredCursor | None]
    oldest: int | None
    """First sequence number of the oldest row."""
    rows_end: int | None
    """Sequence number after the newest row."""


class Finding(msgspec.Struct, frozen=True):
    """One thing to log: `from_sequence` to `to_sequence` are gone for the sinks, with counts."""

    message: str
    advice: str
    sink: str | None = None
    from_sequence: int | None = None
    to_sequence: int | None = None
    undelivered: dict[str, int] | None = None


class RecoveredState(msgspec.Struct, frozen=True):
    """Where to go on. `changed`: it differs from what is on disk, and must be stored first."""

    next_sequence: int
    cursors: dict[str, StoredCursor]
    findings: list[Finding]
    changed: bool


def recover(found: FoundState, watermark: Watermark | None) -> RecoveredState:
    """Where the relay goes on, given what is on disk and what was durable last."""
    stored_end = max(found.next_sequence or 1, found.rows_end or 1)
    findings = list[Finding]()
    if found.next_sequence is None or found.next_sequence < stored_end:
        findings.append(
            Finding("the next sequence number was missing or damaged",
                    f"it was computed anew as {stored_end}; check the disk")
        )  # fmt: skip
    cursors, damaged = _sane_cursors(found, stored_end, watermark)
    findings += damaged
    # Without a watermark, a cursor beyond the end is the only witness.
    end = max(
        [stored_end, watermark.end if watermark else 1]
        + [cursor.next_sequence for cursor in cursors.values()]
    )
    if watermark is not None and watermark.end > stored_end:
        # The database is an older one; its cursors are too old as well.
        for name, noted in watermark.cursors.items():
            cursors[name] = max(cursors.get(name, noted), noted, key=lambda c: c.next_sequence)
    for name, cursor in cursors.items():
        if found.oldest is not None and cursor.next_sequence < found.oldest:
            cursors[name] = _lose(cursor, found.oldest)
            findings.append(_gone_before_oldest(name, cursor.next_sequence, found.oldest))
    # Where the newest row ends, the gap begins: for a cursor beyond that, it is behind it already.
    rows_end = found.rows_end or 0
    undelivered = {
        name: end - max(cursor.next_sequence, rows_end)
        for name, cursor in cursors.items()
        if cursor.next_sequence < end
    }
    undelivered = {name: count for name, count in undelivered.items() if count}
    if undelivered or end > stored_end:
        first = min([stored_end, *(end - count for count in undelivered.values())])
        findings.append(_gone_at_end(found, first, end, undelivered))
    recovered = {
        name: _lose(cursor, end) if cursor.next_sequence >= rows_end else cursor
        for name, cursor in cursors.items()
    }
    changed = end != found.next_sequence or recovered != found.cursors
    return RecoveredState(end, recovered, findings, changed)


def _sane_cursors(
    found: FoundState, stored_end: int, watermark: Watermark | None
) -> tuple[dict[str, StoredCursor], list[Finding]]:
    """Cursors that can be right; in the place of others those of the watermark, or the oldest."""
    most = _MOST if watermark is None else max(watermark.end, stored_end)
    noted = {} if watermark is None else watermark.cursors
    oldest = stored_end if found.oldest is None else found.oldest
    cursors, findings = dict[str, StoredCursor](), list[Finding]()
    for name, cursor in found.cursors.items():
        if cursor is None or not 1 <= cursor.next_sequence <= most:
            cursor = noted.get(name, StoredCursor(oldest, oldest))
            findings.append(
                Finding("the cursor of a sink was damaged",
                        f"it goes on at {cursor.next_sequence:,}, which may send records again; "
                        "check the disk", sink=name)
            )  # fmt: skip
        cursors[name] = cursor
    return cursors, findings


def _lose(cursor: StoredCursor, next_sequence: int) -> StoredCursor:
    lost = next_sequence - cursor.next_sequence
    return msgspec.structs.replace(cursor, next_sequence=next_sequence, lost=cursor.lost + lost)


def _gone_before_oldest(sink: str, first: int, oldest: int) -> Finding:
    return Finding(
        "acknowledged records are gone from the disk",
        "they were deleted from buffer.db before this sink had them, not by the relay; check who "
        "may write there",
        from_sequence=first, to_sequence=oldest - 1, undelivered={sink: oldest - first},
    )  # fmt: skip


def _gone_at_end(found: FoundState, first: int, end: int, undelivered: dict[str, int]) -> Finding:
    cause = (
        "buffer.db is new or was emptied"
        if found.oldest is None and found.next_sequence == 1
        else "the write-ahead log was removed or cut, buffer.db was replaced by an older copy, or "
        "rows were deleted from it"
    )
    return Finding(
        "acknowledged records are gone from the disk",
        f"{cause}; check the disk and who may write to state_dir. Numbering goes on at {end:,}; "
        "files are read again from the stored position",
        from_sequence=first, to_sequence=end - 1, undelivered=undelivered,
    )  # fmt: skip
