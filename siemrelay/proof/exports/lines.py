"""Cuts an export into its lines, whatever the pieces in which it is read, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

MOST_LINE_BYTES: Final = 64 << 20
"""Of one line: a page of a scroll or a whole answer of a search may be one."""

LONG_LINE_BYTES: Final = 1 << 20
"""A line of more bytes is decoded only after a look at what it would take."""

MOST_DOCUMENT_BYTES: Final = 256 << 20
"""Of JSON that goes over many lines and is held as a whole."""

# Memory of a JSON text while it is worked on: some copies of it, and for each value, of which there
# are no more than commas and brackets, up to 170 bytes (a number with a fraction, with its name).
_COPIES: Final = 5
_VALUE_BYTES: Final = 200

MOST_DECODED_BYTES: Final = 1 << 30
"""Of memory that one JSON text or row of a CSV may take, as far as its commas and brackets say."""

Block = tuple[int, list[bytes]]
"""Lines without their line feeds, and the number of the first one."""


class TooLarge(ValueError):
    """A part of an export that would take too much memory; says what to do."""


def blocks_of_lines(pieces: Iterable[bytes]) -> Iterator[Block]:
    """The lines of an export that comes in pieces, as many at once as a piece has.

    A byte order mark at the start is left out. Raises TooLarge for a line above `MOST_LINE_BYTES`.
    """
    number, tail, size = 1, list[bytes](), 0
    for piece in _without_mark(pieces):
        last = piece.rfind(b"\n")
        if last < 0:
            tail.append(piece)
            size += len(piece)
        else:
            lines = b"".join((*tail, piece[:last])).split(b"\n")
            yield number, lines
            number += len(lines)
            tail, size = [piece[last + 1 :]], len(piece) - last - 1
        if size > MOST_LINE_BYTES:
            raise TooLarge(f"line {number:,} is longer than {MOST_LINE_BYTES >> 20} MiB: this "
                           "is no export that is known, or one to be made in parts")  # fmt: skip
    if rest := b"".join(tail):
        yield number, [rest]


def _without_mark(pieces: Iterable[bytes]) -> Iterator[bytes]:
    start, iterator = b"", iter(pieces)
    for piece in iterator:
        start += piece
        if len(start) >= len(_MARK):
            break
    yield start.removeprefix(_MARK)
    yield from iterator


_MARK: Final = b"\xef\xbb\xbf"


def decoded_bytes(text: bytes) -> int:
    """How much memory a JSON text, or a row of a CSV, may take when it is decoded."""
    return _COPIES * len(text) + _VALUE_BYTES * sum(map(text.count, (b",", b"[", b"{")))


def check_decoded_size(text: bytes, line: int) -> None:
    """Raise TooLarge if a JSON text, or a row of a CSV, would take too much memory when decoded."""
    size = decoded_bytes(text)
    if size > MOST_DECODED_BYTES:
        raise TooLarge(f"line {line:,}: one value of {len(text) >> 20:,} MiB with so many parts "
                       f"that it would take {size >> 20:,} MiB of memory: export one event a line "
                       "(NDJSON), or in parts")  # fmt: skip


# Texts that are nowhere in a document, each of which takes a search of all of it; and numbers that
# only begin like the one that is looked for.
_MOST_UNFOUND: Final = 100
_MOST_LONGER: Final = 1_000


class LineFinder:
    """Finds the lines of texts that come one after the other in a document."""

    def __init__(self, document: bytes) -> None:
        self._document, self._at, self._line, self._unfound = document, 0, 1, 0

    def line_of(self, text: bytes) -> int:
        """The line of the next such text that no digit follows; that of the one before if there is
        none."""
        at, found = self._at, -1
        for _ in range(_MOST_LONGER if self._unfound < _MOST_UNFOUND else 0):
            found = self._document.find(text, at)
            at = found + len(text)
            if found < 0 or not self._document[at : at + 1].isdigit():
                break
        else:
            found = -1
        if found < 0:
            self._unfound += 1
        else:
            self._line += self._document.count(b"\n", self._at, found)
            self._at = at
        return self._line
