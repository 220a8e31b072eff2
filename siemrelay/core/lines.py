"""Records as lines: the form in which they are handed over, stored and read back.

Invariant: in a payload of `count` records each record ends with a line feed, and there are `count`
lines. Records that have line feeds inside make more lines than there are records: then each ends
with a record separator and a line feed (`\\x1e\\n`), unless there is just one. So a payload can be
split only with `count`; checked by test_records_of_any_bytes_survive_as_lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import BytesIO
from itertools import groupby
from typing import Final, overload

# Between records over several lines: ASCII's own character for it, which no text has.
_SEPARATOR: Final = b"\x1e\n"
# A payload of records over several lines fits into a row of the buffer; a longer record is alone.
_MOST_BYTES: Final = 256 << 10
# Several lines of usual length, far less than what the first cache of a processor holds. Measured
# on lines of 590 bytes: 113 ns a line, 129 with 8 KiB, 150 with 2 KiB.
_PIECE_BYTES: Final = 4096


def count_lines(payload: bytes) -> int:
    """The number of lines.

    Measured on 600 lines of 390 bytes: readlines 17 µs, bytes.count 1,000, as it compares byte by
    byte. bytes.replace takes 13 µs, but in the reading of a stream the page faults of its copy
    cost 190 µs more.
    """
    return len(BytesIO(payload).readlines())


def payloads(records: Sequence[bytes]) -> Iterator[tuple[bytes, Sequence[bytes]]]:
    """Records of any bytes, in order, as few payloads as can hold them; usually one.

    Each comes with its records.
    """
    if not records:
        return
    payload = b"\n".join([*records, b""])
    if len(records) == 1 or count_lines(payload) == len(records):
        yield payload, records
        return
    if len(payload) <= _MOST_BYTES and _SEPARATOR not in payload:
        yield separated(records), records
        return
    half = len(records) // 2
    yield from payloads(records[:half])
    yield from payloads(records[half:])


def separated(records: Sequence[bytes]) -> bytes:
    """One payload of what was made of the records of one payload.

    A separator that came into one of them meanwhile is taken out again.
    """
    payload = b"\n".join([*records, b""])
    if len(records) <= 1 or count_lines(payload) == len(records):
        return payload
    return _SEPARATOR.join([*(record.replace(_SEPARATOR, b"\n") for record in records), b""])


def records_of(payload: bytes, count: int) -> list[bytes]:
    """The records of a payload, without what ends them."""
    if count == 1:
        return [payload[:-1]]
    lines = BytesIO(payload).readlines()
    if len(lines) == count:
        return [line[:-1] for line in lines]
    return payload.split(_SEPARATOR)[:-1]


class RecordLines(Sequence[bytes]):
    """The records of a payload that has a line for each, taken apart only where one is looked at.

    What passes on records as they are (`format: raw`, the framing of a stream) needs the payload
    alone, and so costs no work per record.
    """

    __slots__ = ("_count", "_records", "_utf8", "payload")

    def __init__(self, payload: bytes, count: int) -> None:
        self.payload, self._count = payload, count
        self._records: list[bytes] | None = None
        self._utf8: bool | None = None

    @property
    def are_utf8(self) -> bool:
        """Whether all of them are UTF-8; looked at once."""
        if self._utf8 is None:
            self._utf8 = is_utf8(self.payload)
        return self._utf8

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice) and index.indices(self._count) == (0, self._count, 1):
            return self
        return self._taken_apart()[index]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._taken_apart())

    def __add__(self, more: RecordLines) -> RecordLines:
        return RecordLines(self.payload + more.payload, self._count + len(more))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._taken_apart() == list(other)

    __hash__ = None  # type: ignore[assignment]  # as a list

    def _taken_apart(self) -> list[bytes]:
        if self._records is None:
            self._records = records_of(self.payload, self._count)
        return self._records


def lines_of(payload: bytes, count: int) -> Sequence[bytes]:
    """As `records_of`; as `RecordLines` where each record is a line."""
    if must_stay_alone(payload, count):
        return records_of(payload, count)
    return RecordLines(payload, count)


def is_utf8(data: bytes) -> bool:
    """Whether the bytes are UTF-8."""
    if data.isascii():
        return True
    # To test a text takes no time if it is ASCII, as most are, and to decode it does. A character
    # that is cut makes both pieces more than ASCII, so that they are joined again.
    pieces = [data[at : at + _PIECE_BYTES] for at in range(0, len(data), _PIECE_BYTES)]
    try:
        for is_ascii, run in groupby(pieces, bytes.isascii):
            if not is_ascii:
                b"".join(run).decode()
    except UnicodeDecodeError:
        return False
    return True


def invalid_utf8(records: Sequence[bytes]) -> list[int]:
    """Which of them (by index) are not UTF-8."""
    if type(records) is RecordLines and records.are_utf8:
        return []
    return [index for index, record in enumerate(records) if not is_utf8(record)]


def texts_of(records: Sequence[bytes]) -> tuple[list[str], frozenset[int]]:
    """The records as texts, and which of them (by index) have U+FFFD for bytes that are not UTF-8.

    One by one: a text is as wide as its widest character.
    """
    with suppress(UnicodeDecodeError):
        return list(map(bytes.decode, records)), frozenset()
    texts = [record.decode("utf-8", "replace") for record in records]
    return texts, frozenset(invalid_utf8(records))


def size_of(records: Sequence[bytes]) -> int:
    """The bytes of all of them together, without line feeds."""
    # `isinstance` of an abstract base's child runs Python code, which a lone record need not pay.
    if type(records) is RecordLines:
        return len(records.payload) - len(records)
    return sum(map(len, records))


def must_stay_alone(payload: bytes, count: int) -> bool:
    """Whether no other payload may be joined to this one: its records may have line feeds inside.

    It is true for few that have none.
    """
    if count == 1:
        return payload.find(b"\n") < len(payload) - 1
    return payload.endswith(_SEPARATOR)
