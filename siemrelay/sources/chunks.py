"""Cuts a stream of bytes into whole records, as it comes. Pure: bytes in, values out."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from siemrelay.core.options import Size
from siemrelay.sources.contract import Records
from siemrelay.wire.framing.contract import MAX_WHOLE_BYTES
from siemrelay.wire.framing.lines import cut

RecordSize = Annotated[Size, Field(gt=0, le=MAX_WHOLE_BYTES)]
"""The option `max_record_size`: longer records are counted as oversize, and kept."""


class LineSplitter:
    """Turns a stream of bytes into records as soon as their lines end; blank lines are left out.

    A record over 16 MiB comes out in numbered parts, so no more than that is held.
    """

    def __init__(self, max_record_bytes: int) -> None:
        """Records longer than `max_record_bytes` are listed in `oversize`, and kept."""
        self.oversize: list[int] = []
        """The sizes in bytes of over-long records since this was last emptied."""
        self._max_record_bytes = max_record_bytes
        self._held: list[bytes] = []
        self._held_bytes, self._parts = 0, 0

    def feed(self, data: bytes) -> list[Records]:
        """The records whose lines end in `data`, in order."""
        first = data.find(b"\n") + 1
        if not first:
            return self._hold(data)
        found: list[Records] = []
        if self._held or self._parts:
            found = [*self._hold(data[: first - 1]), *self._line()]
            data = data[first:]
        chunk = cut(data, self._max_record_bytes)
        if chunk is None:
            return found + self._hold(data)
        self.oversize += chunk.oversize
        if chunk.count:
            found.append(Records(chunk.payload, chunk.count))
        return found + self._hold(data[len(chunk.consumed) :])

    def end(self) -> list[Records]:
        """The last record, if its line did not end."""
        return self._line() if self._held or self._parts else []

    def _hold(self, data: bytes) -> list[Records]:
        found: list[Records] = []
        if not data:
            return found
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > MAX_WHOLE_BYTES:
            whole = b"".join(self._held)
            while len(whole) > MAX_WHOLE_BYTES:
                self._parts += 1
                found.append(Records(whole[:MAX_WHOLE_BYTES] + b"\n", 1, (), self._parts))
                whole = whole[MAX_WHOLE_BYTES:]
            self._held, self._held_bytes = [whole], len(whole)
        return found

    def _line(self) -> list[Records]:
        line, parts = b"".join(self._held), self._parts
        self._held, self._held_bytes, self._parts = [], 0, 0
        size = parts * MAX_WHOLE_BYTES + len(line)
        if size > self._max_record_bytes:
            self.oversize.append(size)
        if parts:
            return [Records(line + b"\n", 1, (), parts + 1)]
        return [] if line in (b"", b"\r") else [Records(line + b"\n", 1)]
