"""Cuts an export into its lines, whatever the pieces in which it is read, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

MOST_LINE_BYTES: Final = 64 << 20
"""Of one line: a page of a scroll or a whole answer of a search may be one."""

MOST_DOCUMENT_BYTES: Final = 256 << 20
"""Of JSON that goes over many lines and is held as a whole."""

# Bytes of memory that a value of a JSON text may take when it is decoded: an empty object with its
# place in a list takes 72, a number with a fraction 130.
_VALUE_BYTES: Final = 130

MOST_DECODED_BYTES: Final = 1 << 30
"""Of memory that one JSON text may take, as far as its commas and brackets say."""

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


def check_decoded_size(text: bytes, line: int) -> None:
    """Raise TooLarge if a JSON text may take too much memory when it is decoded."""
    values = sum(map(text.count, (b",", b"[", b"{", b":")))
    if len(text) + values * _VALUE_BYTES > MOST_DECODED_BYTES:
        raise TooLarge(f"line {line:,}: one JSON text of {len(text) >> 20:,} MiB with some "
                       f"{values:,} values would take too much memory: export in parts, or one "
                       "event a line (NDJSON)")  # fmt: skip
