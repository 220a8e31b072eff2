"""Cuts a stream of bytes into records, one a line, however the bytes arrive. Pure."""

from __future__ import annotations

from typing import Final

from siemrelay.sources.contract import Records
from siemrelay.sources.cutting import MAX_WHOLE_BYTES, cut

_BLANK: Final = (b"", b"\r")


class Lines:
    """What is fed comes out as records as soon as their lines have ended; blank lines do not.

    A record over 16 MiB comes out in numbered parts, so no more than that is held.
    """

    def __init__(self, max_record_bytes: int) -> None:
        """Records longer than `max_record_bytes` are told of in `oversize`, and kept."""
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
        made = cut(data, self._max_record_bytes)
        if made is None:
            return found + self._hold(data)
        self.oversize += made.oversize
        if made.count:
            found.append(Records(made.payload, made.count))
        return found + self._hold(data[len(made.consumed) :])

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
        return [] if line in _BLANK else [Records(line + b"\n", 1)]
