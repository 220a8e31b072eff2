"""The rows of the buffer's tables: records compressed with a checksum, cursors with counts."""

from __future__ import annotations

import sqlite3
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple

import msgspec
import structlog
import zstandard

from siemrelay.core.event import Batch

_log = structlog.get_logger()

# Level 1 measured best: higher levels save few bytes for much time. Matches longer than its
# default, as the keys of JSON are long, and a table and a window that leave room in a core's caches
# make it a sixth faster and the result 3 % larger.
_PARAMETERS: Final = zstandard.ZstdCompressionParameters.from_level(
    1, min_match=7, hash_log=12, window_log=18, write_checksum=True
)

# The cost of a row beside its payload. Small rows share a page. A row that spills over has pages of
# its own, the last one half empty on average.
_ROW_BYTES: Final = 96
_SPILLED_ROW_BYTES: Final = 8192
_SPILL_BYTES: Final = 4096

# More than one commit of large rows has, so that none is forgotten before it is taken.
_MOST_AHEAD: Final = 16


class StoredCursor(msgspec.Struct, frozen=True, array_like=True):
    """A row of the table `cursors`, without the sink's name.

    `stream` is the sink's `StreamState` as text, empty if it never had `seal:`.
    Invariant: the counts are those of `SinkCounts`, in their order, since each is made of the other
    by position; checked by test_a_stored_cursor_has_the_counts_of_a_sink_in_their_order.
    """

    next_sequence: int
    first_sequence: int
    delivered: int = 0
    duplicates: int = 0
    filtered: int = 0
    refused: int = 0
    dropped: int = 0
    lost: int = 0
    last_success_at: float = 0.0
    retried: int = 0
    replayed: int = 0
    stream: str = ""


CURSOR_COLUMNS: Final = ", ".join(StoredCursor.__struct_fields__)


class Row(NamedTuple):
    """A row of the table `batches`; `records` is its column `count`, which a tuple cannot have."""

    first_sequence: int
    records: int
    source: str
    received_at: float
    payload: bytes
    part: int | None
    raw_size: int

    @property
    def is_sound(self) -> bool:
        """Whether the values can be what was stored; SQLite verifies no types. Payload aside."""
        return (
            isinstance(self.records, int)
            and isinstance(self.source, str)
            and isinstance(self.received_at, float)
            and isinstance(self.part, int | None)
            and isinstance(self.raw_size, int)
            and 0 < self.records <= self.raw_size  # each has its line feed
        )


COLUMNS: Final = "first_sequence, count, source, received_at, payload, part, raw_size"
"""In the order of a `Row`."""


def used_bytes(payload_bytes: int) -> int:
    """About the bytes of the file that a row with this payload takes."""
    return payload_bytes + (_SPILLED_ROW_BYTES if payload_bytes > _SPILL_BYTES else _ROW_BYTES)


class CompressingAhead:
    """Compresses records that wait for a commit to end, which mostly waits for the disk."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "compressing ahead")
        self._compress = zstandard.ZstdCompressor(compression_params=_PARAMETERS).compress
        # By the identity of the bytes, which are kept for as long as they are here.
        self._begun: dict[int, tuple[bytes, Future[bytes]]] = {}

    def begin(self, payload: bytes) -> None:
        """Compress these bytes, unless they are taken before it is their turn."""
        self._begun[id(payload)] = payload, self._thread.submit(self._compress, payload)
        # Some are never taken: they were joined with others. The writer may take one meanwhile.
        for forgotten in list(self._begun)[:-_MOST_AHEAD]:
            if (found := self._begun.pop(forgotten, None)) is not None:
                found[1].cancel()

    def take(self, payload: bytes) -> bytes | None:
        """The bytes compressed, waiting for that if it is under way; None if it has not begun."""
        _, begun = self._begun.pop(id(payload), (payload, None))
        return None if begun is None or begun.cancel() else begun.result()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)


class Payloads:
    """Batches to rows and back. One thread may pack while another one unpacks."""

    def __init__(self) -> None:
        self._compress = zstandard.ZstdCompressor(compression_params=_PARAMETERS).compress
        self._decompress = zstandard.ZstdDecompressor().decompress
        self._ahead: CompressingAhead | None = None

    def compress_ahead(self, payload: bytes) -> None:
        """Begin to compress what will be a row, in a thread of its own."""
        if self._ahead is None:
            self._ahead = CompressingAhead()
        self._ahead.begin(payload)

    def close(self) -> None:
        """End that thread."""
        if self._ahead is not None:
            self._ahead.close()

    def packed(self, payload: bytes) -> bytes:
        """The records of a batch as they are stored."""
        ahead = None if self._ahead is None else self._ahead.take(payload)
        return ahead or self._compress(payload)

    def row(self, batch: Batch) -> Row:
        """The row that stores a batch."""
        return Row(
            batch.first_sequence, batch.count, batch.source, batch.received_at,
            self.packed(batch.payload), batch.part, len(batch.payload),
        )  # fmt: skip

    def unpacked(self, row: Row) -> bytes | None:
        """The records of a row; None if they are damaged."""
        try:
            # A damaged header may claim any size.
            if zstandard.frame_content_size(row.payload) == row.raw_size:
                return self._decompress(row.payload, row.raw_size)
        except (zstandard.ZstdError, TypeError):
            pass
        return None

    def batch(self, row: Row) -> Batch:
        """The batch of a row. A damaged payload gives as many records that each report the damage.

        Raises sqlite3.DatabaseError for a row that is not sound, as SQLite does for damage.
        """
        if not row.is_sound:
            error = sqlite3.DatabaseError(f"the row of record {row.first_sequence}")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error
        first, count, source, received_at, _, part, _ = row
        if (whole := self.unpacked(row)) is not None:
            return Batch(first, count, source, received_at, whole, part)
        # The records are lost, but not the fact that they existed.
        _log.error(
            "records damaged on disk", source=source, first_sequence=first, records=count,
            advice="check the disk; each is sent as an Unparsed Record that reports the damage",
        )  # fmt: skip
        lost = [b"record %d was damaged on disk\n" % n for n in range(first, first + count)]
        return Batch(first, count, source, received_at, b"".join(lost), part)
