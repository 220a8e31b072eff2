"""Dead letters in the buffer's file: what a peer refused for good, with its own words."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from siemrelay.core.event import Batch

Execute = Callable[..., Any]
"""A connection's `execute`."""


class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """One record that one sink's peer will never take: as received, and as it was sent.

    `source`, `received_at` and `part` as in the batch that it came in; of letters that an older
    siemrelay kept they are empty, 0 and None.
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
    """The letter of a record, which is a batch of one; None if it is not kept any more."""
    if record is None:
        return DeadLetter(sink, sequence, time.time(), code, reason, b"", message)
    return DeadLetter(
        sink, sequence, time.time(), code, reason, record.payload[:-1], message,
        record.source, record.received_at, record.part,
    )  # fmt: skip


_COLUMNS: Final = ", ".join(DeadLetter.__struct_fields__)
_PLACES: Final = ", ".join("?" * len(DeadLetter.__struct_fields__))


def write(execute: Execute, letters: Iterable[DeadLetter]) -> None:
    """Keep them; one that is kept already gets the newer words."""
    for letter in letters:
        execute(
            f"INSERT OR REPLACE INTO dead_letters ({_COLUMNS}) VALUES ({_PLACES})",
            msgspec.structs.astuple(letter),
        )


def count(execute: Execute) -> dict[str, int]:
    """How many each sink has."""
    query = "SELECT sink, count(*) FROM dead_letters INDEXED BY dead_letters_of GROUP BY sink"
    return dict(execute(query).fetchall())


def read(execute: Execute, sink: str, first: int, before: int, limit: int) -> list[DeadLetter]:
    """Those of a sink with sequence numbers from `first` to below `before`, at most `limit`."""
    rows = execute(
        f"SELECT {_COLUMNS} FROM dead_letters WHERE sink = ? AND sequence >= ? AND sequence < ?"
        " ORDER BY sequence LIMIT ?",
        (sink, first, before, limit),
    )
    return [DeadLetter(*row) for row in rows]


def drop(execute: Execute, sink: str, sequences: Iterable[int]) -> None:
    """Forget just these of a sink: the relay may keep others between them meanwhile."""
    for sequence in sequences:
        execute("DELETE FROM dead_letters WHERE sink = ? AND sequence = ?", (sink, sequence))
