"""One JSON record that holds many: the items of the array in it, each with its own bytes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from siemrelay.wire.json_slices import array_slices

_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_array: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


def on_one_line(items: Iterable[msgspec.Raw]) -> Iterator[bytes]:
    """The items as records, without line feeds between their parts."""
    for item in map(bytes, items):
        yield item if b"\n" not in item else msgspec.json.format(item, indent=-1)


class ItemSplitter:
    """Finds the array at one dotted path of object members."""

    def __init__(self, path: str) -> None:
        self._path = path.split(".")
        self._mark = b'"%b"' % self._path[-1].encode()

    def may_split(self, payload: bytes) -> bool:
        """Whether one of the records there may hold the array. A name with escapes is not found."""
        return self._mark in payload

    def slices(self, record: bytes | msgspec.Raw) -> Iterator[list[msgspec.Raw]] | None:
        """The items of the record, slice by slice; None if it has no array at the path.

        Other tasks may run between two slices. The iterator raises JsonFault if the array is no
        JSON.
        """
        text = bytes(record)
        if not self.may_split(text):
            return None
        for name in self._path:
            try:
                members = _members(text)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                return None
            if name not in members:
                return None
            text = bytes(members[name])
        text = text.strip()
        return array_slices(text, _array, 0) if text.startswith(b"[") else None
