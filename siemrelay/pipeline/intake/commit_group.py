"""The records of one commit, which become rows of the buffer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import trio

from siemrelay.core.event import Batch
from siemrelay.core.lines import must_stay_alone, records_of, separated
from siemrelay.net.tasks import Broadcast
from siemrelay.sources.contract import Records
from siemrelay.telemetry.stats import SourceStats

# The memory of one entry beside its bytes, so that entries with positions alone are bounded too.
_ENTRY_BYTES: Final = 256

# Bytes handed over and not yet stored: enough for reading, compressing and fsyncing to overlap, too
# few for a slow disk to fill the memory. With 2 MiB a rush waits a tenth longer, for fsyncs.
FULL_BYTES: Final = 3 * 1024 * 1024
"""The size of a group to which no more is to be added."""

LARGE_BYTES: Final = 1024 * 1024
"""The size of a group that shows a source which reads a backlog, or a rush."""

# Small entries of one source are joined into one row up to this size: decoders work on payloads.
_ROW_BYTES: Final = 512 * 1024

# A record counts as at least this many bytes: to decode and format it costs that much however short
# it is, and a row of 200,000 lines of one letter would hold the loop for seconds.
_RECORD_BYTES: Final = 256

ROW_RECORDS: Final = _ROW_BYTES // _RECORD_BYTES
"""No row has more records."""


class CommitGroup:
    """The entries of one commit: records, where they come from, and when they were taken."""

    def __init__(self) -> None:
        self.entries: list[tuple[SourceStats, Records, float]] = []
        self.filtered: dict[str, int] = {}
        self.size_bytes = 0
        self.batches: list[Batch] = []
        """The entries as rows, once these are numbered."""
        self.positions: dict[tuple[str, str], Mapping[str, Any] | None] = {}
        """The last position of each key of each source, from then on."""
        self._end, self._is_awaited = 0, False
        self._changed = Broadcast()

    def add(self, source: SourceStats, records: Records, taken_at: float) -> None:
        """Add one source's records, in the order in which they were offered."""
        self.entries.append((source, records, taken_at))
        self.size_bytes += _ENTRY_BYTES + _cost(records)
        if self.size_bytes >= FULL_BYTES:
            self._changed.wake_all()

    async def until_full(self, at_most_s: float) -> None:
        """Wait until it is full, or somebody waits for it to be stored; so long at most."""
        with trio.move_on_after(at_most_s):
            while not (self.size_bytes >= FULL_BYTES or self._is_awaited):
                await self._changed.wait()

    def stored(self, end: int) -> None:
        """Note that they are on disk; `end` is the sequence number after them."""
        self._end = end
        self._changed.wake_all()

    async def until_stored(self) -> int:
        """Wait until they are on disk; returns the sequence number after them."""
        self._is_awaited = True
        self._changed.wake_all()
        while not self._end:
            await self._changed.wait()
        return self._end

    def number(self, first: int) -> None:
        """Make the rows of the entries, numbered from `first`; small ones of a source joined."""
        if len(self.entries) == 1:
            source, records, taken_at = self.entries[0]
            if count := records.count:
                row = Batch(first, count, source.name, taken_at, records.payload, records.part)
                self.batches = [row]
        else:
            self.batches = [*self._rows(first)]
        for source, records, _ in self.entries:
            for position in records.positions:
                self.positions[source.name, position.key] = position.value

    def _rows(self, first: int) -> Iterator[Batch]:
        # Order matters within a source only; sorted, its entries can share a row.
        entries = sorted(self.entries, key=lambda entry: entry[0].name)
        payloads: list[bytes] = []
        count = size = 0
        for i, (source, records, taken_at) in enumerate(entries):
            payloads.append(records.payload)
            count, size = count + records.count, size + _cost(records)
            following = entries[i + 1] if i + 1 < len(entries) else None
            if (
                following is not None
                and following[0] is source
                and not _alone(records)
                and not _alone(following[1])
                and size + _cost(following[1]) <= _ROW_BYTES
            ):
                continue
            if count:
                payload = payloads[0] if len(payloads) == 1 else b"".join(payloads)
                yield Batch(first, count, source.name, taken_at, payload, records.part)
                first += count
            payloads, count, size = [], 0, 0


def has_own_row(records: Records) -> bool:
    """Whether they are so many bytes that they will have a row of their own, most likely."""
    return len(records.payload) > _ROW_BYTES // 2


def row_sized(records: Records) -> Iterator[Records]:
    """The records in pieces that a row can hold, the positions with the last of them."""
    if records.count <= ROW_RECORDS:
        yield records
        return
    whole = records_of(records.payload, records.count)
    for start in range(0, records.count, ROW_RECORDS):
        some = whole[start : start + ROW_RECORDS]
        is_last = start + ROW_RECORDS >= records.count
        yield msgspec.structs.replace(
            records, payload=separated(some), count=len(some),
            positions=records.positions if is_last else (),
        )  # fmt: skip


def _cost(records: Records) -> int:
    return max(len(records.payload), records.count * _RECORD_BYTES)


def _alone(records: Records) -> bool:
    """Whether the records need a row of their own."""
    return records.part is not None or must_stay_alone(records.payload, records.count)
