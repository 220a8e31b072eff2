"""One record a line: the framing of nearly every log. Pure: bytes in, values out."""

from __future__ import annotations

from io import BytesIO
from typing import Final

from siemrelay.wire.framing.contract import Ahead, Chunk, Rest

_BLANK: Final = (b"\n", b"\r\n")


def cut(data: bytes, max_record_bytes: int) -> Chunk | None:
    """The whole lines of `data` without the blank ones; None if not even one line ends in it."""
    end = data.rfind(b"\n") + 1
    if not end:
        return None
    whole = data[:end]
    # Measured on 1 MiB of 450-byte lines with Python 3.11: readlines 0.07 ms and each `in` 0.03,
    # against 0.35 ms for bytes.count and 0.85 for a search for two line feeds, which compare
    # byte by byte where this uses memchr.
    lines = BytesIO(whole).readlines()
    payload = whole
    if b"\n" in lines or b"\r\n" in lines:
        lines = [line for line in lines if line not in _BLANK]
        payload = b"".join(lines)
    oversize: tuple[int, ...] = ()
    if end - 1 > max_record_bytes and max(map(len, lines), default=0) - 1 > max_record_bytes:
        oversize = tuple(len(line) - 1 for line in lines if len(line) - 1 > max_record_bytes)
    return Chunk(payload, len(lines), None, oversize, whole)


class LineFraming:
    """A framing and its splitter in one: nothing depends on the content.

    Readers of files split lines over 16 MiB themselves.
    """

    wait_s: Final = None
    begin_bytes: Final = 0
    by_first_line = True

    def __init__(self, max_record_bytes: int) -> None:
        self.max_record_bytes = max_record_bytes

    def splitter(self, begin: bytes, *, at_start: bool) -> LineFraming:
        return self

    def split(self, data: bytes, rest: Rest, ahead: Ahead = ()) -> Chunk | None:
        """The whole lines; with `Rest.FINAL`, once there is no whole one, what is left."""
        chunk = cut(data, self.max_record_bytes)
        if chunk is not None or not data or rest is not Rest.FINAL:
            return chunk
        if data == b"\r":
            return Chunk(b"", 0, consumed=data)
        oversize = (len(data),) if len(data) > self.max_record_bytes else ()
        return Chunk(data + b"\n", 1, None, oversize, data)
