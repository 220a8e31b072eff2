"""Takes the records of a source apart that hold many (`items:`), before they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import structlog
import trio

from siemrelay.core.lines import records_of, separated
from siemrelay.sources.contract import Records
from siemrelay.wire.items import ItemSplitter, on_one_line
from siemrelay.wire.json_slices import JsonFault

_log = structlog.get_logger()

# A record with more is kept whole: as many in one commit would keep everybody else waiting.
MOST_ITEMS: Final = 100_000


class RecordSplitter:
    """Makes a record of each item of a record that has some; others stay as they are."""

    def __init__(self, source: str, path: str) -> None:
        """`path` leads to the array of items in a record."""
        self._source, self._items = source, ItemSplitter(path)

    async def split(self, offered: Sequence[Records]) -> list[Records]:
        """The same records with the same positions, those with items taken apart.

        The items of a record are one `Records`, with its position: a restart finds all of them
        stored, or reads the record again.
        """
        return [
            await self._apart(records)
            if records.part is None and self._items.may_split(records.payload)
            else records
            for records in offered
        ]

    async def _apart(self, records: Records) -> Records:
        found, count = list[bytes](), 0
        for record in records_of(records.payload, records.count):
            items = await self._items_of(record)
            if items is None:
                if records.count == 1:
                    return records
                items = [record]
            found += items
            count += len(items)
        payload = separated(found) if found else b""
        return msgspec.structs.replace(records, payload=payload, count=count)

    async def _items_of(self, record: bytes) -> list[bytes] | None:
        """The items of a record; None if it has none, or too many."""
        slices = self._items.slices(record)
        if slices is None:
            return None
        items = list[bytes]()
        try:
            for some in slices:
                items += on_one_line(some)
                if len(items) > MOST_ITEMS:
                    _log.warning(
                        "record with too many items is kept whole", source=self._source,
                        bytes=len(record), most=MOST_ITEMS,
                    )  # fmt: skip
                    return None
                await trio.lowlevel.checkpoint()
        except JsonFault:
            return None
        return items
