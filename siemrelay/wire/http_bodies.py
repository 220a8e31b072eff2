"""Bodies of POSTs → records, without I/O: JSON (one value, an array, one after the other), lines.

A decoder in C checks JSON to its end and leaves each value as the bytes that were received, so a
body of hundreds of records costs one call. A body with a fault is refused as a whole.

A long body is read in steps: the generators here yield where other tasks may run, after some 10 ms
at most, and return their result. `finish` runs one to its end at once.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Generator, Iterator
from io import BytesIO
from typing import Final, Literal, TypeVar, cast

import msgspec

from siemrelay.core.errors import SiemrelayError
from siemrelay.core.lines import count_lines
from siemrelay.wire.items import ItemSplitter
from siemrelay.wire.json_slices import SLICE_BYTES, JsonFault, array_slices, value_slices

T = TypeVar("T")

# A row of the buffer. A larger one would be compressed and decoded in one call, while nothing else
# runs.
ROW_BYTES: Final = 512 * 1024
ROW_RECORDS: Final = 4096

CODINGS: Final = ("gzip", "x-gzip", "deflate", "identity", "gzip,deflate")
"""The values of `Content-Encoding` that `decompressed` knows, without spaces.

The last one is what GELF libraries (graypy, pygelf) write for a body with one of the two.
"""

_WINDOWS: Final = {"deflate": zlib.MAX_WBITS, "gzip,deflate": zlib.MAX_WBITS | 32}

# Senders make one member, or join a few; each costs a copy of everything behind it.
_MOST_MEMBERS: Final = 64

BodyKind = Literal["json", "values", "lines", "form"]
"""A JSON text, JSON values one after the other (NDJSON), lines of any text, a form with JSON."""

_KINDS: Final[dict[str, BodyKind]] = {
    "": "json",
    "application/json": "json",
    "text/json": "json",
    "application/x-ndjson": "values",
    "application/ndjson": "values",
    "application/jsonl": "values",
    "application/x-jsonlines": "values",
    "application/jsonlines": "values",
    "text/plain": "lines",
    "application/x-www-form-urlencoded": "form",
}
_CHARSET: Final = re.compile(r';\s*charset\s*=\s*"?([^";\s]+)', re.IGNORECASE)
_UTF8: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})

_BOM: Final = b"\xef\xbb\xbf"
_ARRAY: Final = re.compile(rb"[ \t\r\n]*\[")
_BLANK: Final = frozenset({b"\n", b"\r\n"})

_values: Final = msgspec.json.Decoder(msgspec.Raw).decode_lines
_array: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


class BodyRefused(SiemrelayError):
    """A body has a fault: refuse the request; the text states the fault and its position.

    `byte` counts from 0 in the body as it is after decompression, `line` and `column` from 1; None
    where the fault has no one place.
    """

    def __init__(self, reason: str, *, body: bytes = b"", byte: int | None = None) -> None:
        self.reason, self.byte = reason, byte
        self.line = self.column = None
        where = ""
        if byte is not None:
            self.line = body.count(b"\n", 0, byte) + 1
            self.column = byte - (body.rfind(b"\n", 0, byte) + 1) + 1
            where = f"line {self.line}, column {self.column} (byte {byte}): "
        super().__init__(where + reason)


class BodyTooLarge(SiemrelayError):
    """A body is larger than the limit, or would be when decompressed: refuse the request."""


class TooManyRecords(SiemrelayError):
    """A body has more records than are taken at a time: its sender must send less at a time."""

    def __init__(self, most: int) -> None:
        super().__init__(f"more than {most} records in one request; send them in several")


class Payload(msgspec.Struct, frozen=True, gc=False):
    """`count` records in `payload`, each ended by a line feed and with none inside."""

    payload: bytes
    count: int

    def rows(self) -> Iterator[Payload]:
        """Pieces of about ROW_BYTES and at most ROW_RECORDS, cut between records."""
        payload, start, count = self.payload, 0, self.count
        while len(payload) - start > ROW_BYTES:
            end = payload.find(b"\n", start + ROW_BYTES) + 1
            piece = payload[start:end]
            found = count_lines(piece)
            yield from _short_rows(piece, found)
            start, count = end, count - found
        if count:
            yield from _short_rows(payload[start:] if start else payload, count)


def _short_rows(payload: bytes, count: int) -> Iterator[Payload]:
    if count <= ROW_RECORDS:
        yield Payload(payload, count)
        return
    lines = BytesIO(payload).readlines()
    for start in range(0, count, ROW_RECORDS):
        some = lines[start : start + ROW_RECORDS]
        yield Payload(b"".join(some), len(some))


def finish(steps: Generator[None, None, T]) -> T:
    """The result of a computation in steps, run at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("T", end.value)


def body_kind(content_type: str) -> BodyKind | None:
    """The kind of body for a Content-Type; None if it is not accepted. A missing type is JSON."""
    name, _, parameters = content_type.partition(";")
    charset = _CHARSET.match(";" + parameters)
    if charset is not None and charset[1].casefold() not in _UTF8:
        return None
    name = name.strip().casefold()
    if name.startswith("application/") and name.endswith("+json"):
        return "json"
    return _KINDS.get(name)


def decompressed(body: bytes, coding: str, limit_bytes: int) -> bytes:
    """The body without its content coding, one of CODINGS.

    Stops as soon as the result is larger than `limit_bytes`: raises BodyTooLarge. Raises
    BodyRefused when the data is damaged or ends too early.
    """
    if coding == "identity":
        return body
    # gzip may have several members one after the other. So may deflate here, the zlib format (RFC
    # 9110): nothing of a body is left out.
    window = _WINDOWS.get(coding, zlib.MAX_WBITS | 16)
    parts, size = [], 0
    for _ in range(_MOST_MEMBERS):
        member = zlib.decompressobj(window)
        try:
            part = member.decompress(body, limit_bytes - size + 1)
        except zlib.error as error:
            raise BodyRefused(f"the {coding} data is damaged: {error}") from error
        parts.append(part)
        size += len(part)
        if size > limit_bytes:
            raise BodyTooLarge(f"more than {limit_bytes} bytes when decompressed")
        if not member.eof:
            raise BodyRefused(f"the {coding} data ends too early")
        if not (body := member.unused_data):
            return b"".join(parts)
    raise BodyRefused(f"the {coding} data has more than {_MOST_MEMBERS} members")


def read_records(
    body: bytes, kind: BodyKind, most: int, items: ItemSplitter | None = None,
    members: bytes = b"",
) -> Generator[None, None, Payload]:  # fmt: skip
    """The records in a body, in order: array elements, values or lines, each on one line.

    Of a value with an array for `items` each element is a record. Values keep their bytes, but for
    the space between their parts where that has line feeds; objects get `members`, as JSON, behind
    their own. Blank lines are no records. Raises BodyRefused when the body is empty or has a fault,
    TooManyRecords as soon as there are more than `most`.
    """
    body = body.removeprefix(_BOM)
    if items is not None and not items.may_split(body):
        items = None
    array = _ARRAY.match(body) if kind == "json" else None
    slices: Iterator[list[bytes]] | Iterator[list[msgspec.Raw]]
    if kind == "lines":
        slices = line_slices(body)
    elif array is not None:
        slices = _checked(body, array_slices(body, _array, array.end() - 1))
    else:
        slices = _checked(body, value_slices(body, _values))
    pieces, count, values = list[bytes](), 0, 0
    for found in slices:
        values += len(found)
        for records in [found] if items is None else _split(found, items):
            count += len(records)
            if count > most:
                raise TooManyRecords(most)
            if records:
                pieces.append(_joined(records, members))
            yield
    if not values and array is None:
        raise BodyRefused("the body is empty: send JSON, or lines as text/plain")
    return Payload(pieces[0] if len(pieces) == 1 else b"".join(pieces), count)


def _checked(body: bytes, slices: Iterator[list[T]]) -> Iterator[list[T]]:
    try:
        yield from slices
    except JsonFault as fault:
        byte = fault.byte if body else None
        raise BodyRefused(fault.reason, body=body, byte=byte) from fault


def _split(
    values: list[bytes] | list[msgspec.Raw], items: ItemSplitter
) -> Iterator[list[bytes] | list[msgspec.Raw]]:
    """The items of these values, and those that have none."""
    for value in values:
        if isinstance(value, bytes) or (found := items.slices(value)) is None:
            yield [value]
        else:
            yield from _checked(b"", found)


def _joined(records: list[bytes] | list[msgspec.Raw], members: bytes = b"") -> bytes:
    if isinstance(records[0], bytes):
        return b"".join(records)
    payload = b"\n".join([*records, b""])
    # Between values only; texts have no line feeds inside, or the decoder would have refused them.
    if count_lines(payload) != len(records):
        records = [
            msgspec.Raw(msgspec.json.format(bytes(value), indent=-1)) for value in records
        ]  # fmt: skip
        payload = b"\n".join([*records, b""])
    if members:
        payload = b"\n".join([*(_with(bytes(each), members) for each in records), b""])
    return payload


def _with(record: bytes, members: bytes) -> bytes:
    """The record with further members; as it is if it is no object."""
    text = record.strip()
    if not text.startswith(b"{"):
        return record
    own = text[:-1].rstrip()
    return own + (b"," if own != b"{" else b"") + members + b"}"


def line_slices(body: bytes) -> Iterator[list[bytes]]:
    """The lines of a body with their line feeds, without blank ones, SLICE_BYTES at a time."""
    at = 0
    while at < len(body):
        end = body.find(b"\n", at + SLICE_BYTES) + 1 or len(body)
        piece = body[at:end]
        while b"\n\n" in piece:  # each blank line would be an object
            piece = piece.replace(b"\n\n", b"\n")
        lines = BytesIO(piece).readlines()
        if not lines[-1].endswith(b"\n"):
            lines[-1] += b"\n"
        if b"\n" in lines or b"\r\n" in lines:
            lines = [line for line in lines if line not in _BLANK]
        yield lines
        at = end
