"""What a row holds of a batch: the records, compressed, with a checksum."""

from __future__ import annotations

from typing import Any, Final

import structlog
import zstandard

from siemrelay.core.event import Batch

_log = structlog.get_logger()

# Level 1: measured best of bytes saved against time, since the disk is slower than the core. With
# longer matches than its own, a tenth faster and 2 % larger: the names of JSON are long.
_PARAMETERS: Final = zstandard.ZstdCompressionParameters.from_level(
    1, min_match=7, hash_log=13, write_checksum=True
)

# What a row costs beside its payload. Small rows share a page; one that spills over has pages of
# its own, the last of them half empty on average.
_ROW_BYTES: Final = 96
_SPILLED_ROW_BYTES: Final = 8192
_SPILL_BYTES: Final = 4096

COLUMNS: Final = "first_sequence, count, source, received_at, payload, part, raw_size"
"""Of the table `batches`, in the order of a `Row`."""

Row = tuple[int, int, str, float, bytes, int | None, int]


def used_bytes(payload_bytes: int) -> int:
    """About what a row with so much payload takes of the file."""
    return payload_bytes + (_SPILLED_ROW_BYTES if payload_bytes > _SPILL_BYTES else _ROW_BYTES)


class Payloads:
    """Batches to rows and back. One thread at a time may pack, another one unpack."""

    def __init__(self) -> None:
        self._compress = zstandard.ZstdCompressor(compression_params=_PARAMETERS).compress
        self._decompress = zstandard.ZstdDecompressor().decompress

    def row(self, batch: Batch) -> Row:
        """What is stored of a batch."""
        return (
            batch.first_sequence, batch.count, batch.source, batch.received_at,
            self._compress(batch.payload), batch.part, len(batch.payload),
        )  # fmt: skip

    def batch(self, row: tuple[Any, ...]) -> Batch:
        """The batch of a row; of a damaged one as many records, each of which says so."""
        first, count, source, received_at, payload, part, size = row
        try:
            # A damaged header may ask for any amount of memory, or for none.
            if zstandard.frame_content_size(payload) == size:
                whole = self._decompress(payload, size)
                return Batch(first, count, source, received_at, whole, part)
        except (zstandard.ZstdError, TypeError):
            pass
        # The bytes rotted. The records are gone; that they were there must not be.
        _log.error(
            "records damaged on disk", source=source, first_sequence=first, records=count,
            advice="check the disk; each is sent as an Unparsed Record that says so",
        )  # fmt: skip
        lost = [b"record %d was damaged on disk\n" % n for n in range(first, first + count)]
        return Batch(first, count, source, received_at, b"".join(lost), part)
