"""Dead letters in the buffer's file: records that a receiver refused for good, and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from siemrelay.core.event import Batch

Execute = Callable[..., Any]
"""A connection's `execute`."""


class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """One record that the receiver of one sink refused for good: as received, and as sent.

    `source`, `received_at` and `part` are those of the record's batch; in dead letters of
    older versions they are empty, 0 and None.
    """

    sink: str
    sequence: int
    at: float
    code: str
    reason: str
    record: bytes
    message: bytes
    source: str = ""
    received_at: float = 0.0
    part: int | None = None

    def batch(self) -> Batch:
        """The record alone, as it was in the buffer."""
        received_at = self.received_at or self.at
        return Batch(self.sequence, 1, self.source, received_at, self.record + b"\n", self.part)


def letter(
    sink: str, sequence: int, code: str, reason: str, record: Batch | None, message: bytes
) -> DeadLetter:
    """The dead letter of `record`, a batch of one, or None if the record is no longer stored."""
    if record is None:
        return DeadLetter(sink, sequence, time.time(), code, reason, b"", message)
    return DeadLetter(
        sink, sequence, time.time(), code, reason, record.payload[:-1], message,
        record.source, record.received_at, record.part,
    )  # fmt: skip


_COLUMNS: Final = ", ".join(DeadLetter.__struct_fields__)
_PLACES: Final = ", ".join("?" * len(DeadLetter.__struct_fields__))


def write(execute: Execute, letters: Iterable[DeadLetter]) -> None:
    """Store dead letters; a stored one gets the newer reason."""
    for letter in letters:
        execute(
            f"INSERT OR REPLACE INTO dead_letters ({_COLUMNS}) VALUES ({_PLACES})",
            msgspec.structs.astuple(letter),
        )


def count(execute: Execute) -> dict[str, int]:
    """The number of dead letters by sink."""
    query = "SELECT sink, count(*) FROM dead_letters INDEXED BY dead_letters_of GROUP BY sink"
    return dict(execute(query).fetchall())


def read(execute: Execute, sink: str, first: int, before: int, limit: int) -> list[DeadLetter]:
    """At most `limit` dead letters of a sink, from `first` to below `before`, in order."""
    rows = execute(
        f"SELECT {_COLUMNS} FROM dead_letters WHERE sink = ? AND sequence >= ? AND sequence < ?"
        " ORDER BY sequence LIMIT ?",
        (sink, first, before, limit),
    )
    return [DeadLetter(*row) for row in rows]


def drop(execute: Execute, sink: str, sequences: Iterable[int]) -> None:
    """Remove exactly these of a sink: the relay may have added others between them."""
    for sequence in sequences:
        execute("DELETE FROM dead_letters WHERE sink = ? AND sequence = ?", (sink, sequence))
