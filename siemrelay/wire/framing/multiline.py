"""Several lines a record: a first line, and what continues it (stack traces, wrapped messages).

A record is complete when the next one begins, or when nothing was written for a while. It has
bounds: what is longer goes on as a record of its own, and is not lost.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

from siemrelay.wire.framing.contract import Ahead, Chunk, Rest, chunk_of


def is_indented(line: bytes) -> bool:
    """Whether a line is blank or begins with white space."""
    return line[:1] in b" \t\r\n"


class Multiline:
    """A framing and its splitter in one: nothing depends on the content."""

    begin_bytes = 0
    by_first_line = True

    def __init__(
        self, continues: Callable[[bytes], bool], wait_s: float, max_lines: int, max_bytes: int,
        max_record_bytes: int,
    ) -> None:  # fmt: skip
        """`continues` says of a line, without its line feed, whether it belongs to the record of
        the line before it.
        """
        self.wait_s, self.max_record_bytes = wait_s, max_record_bytes
        self._continues, self._max_lines, self._max_bytes = continues, max_lines, max_bytes

    def splitter(self, begin: bytes, *, at_start: bool) -> Multiline:
        return self

    def split(self, data: bytes, rest: Rest, ahead: Ahead = ()) -> Chunk | None:
        """See `Splitter`. While a line is incomplete, the record before it may go on."""
        end = len(data) if rest is Rest.FINAL else data.rfind(b"\n") + 1
        lines = BytesIO(data[:end]).readlines()
        records: list[bytes] = []
        first = size = taken = 0
        for i, line in enumerate(lines):
            if i > first and (
                i - first >= self._max_lines
                or size + len(line) > self._max_bytes
                or not self._continues(line.rstrip(b"\r\n"))
            ):
                records.append(b"".join(lines[first:i]))
                taken, first, size = taken + size, i, 0
            size += len(line)
        if size and (rest is Rest.FINAL or (rest is Rest.QUIET and end == len(data))):
            records.append(b"".join(lines[first:]))
            taken += size
        if not taken:
            return None
        return chunk_of([record.rstrip(b"\r\n") for record in records], data[:taken])
