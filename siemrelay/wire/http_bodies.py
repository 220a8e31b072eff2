"""Bodies of POSTs → records, without I/O: JSON (one value, an array, one after the other), lines.

JSON is checked to its end by a decoder in C that leaves each value as the bytes that came, so a
body of hundreds of records costs one call. Nothing is taken of a body that has a fault.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from itertools import islice
from typing import Final, Literal, TypeVar

import msgspec

from siemrelay.core.errors import SiemrelayError

T = TypeVar("T")

# A row of the buffer; larger ones would be compressed and decoded at one go, with nothing between.
ROW_BYTES: Final = 512 * 1024

CODINGS: Final = ("gzip", "x-gzip", "deflate", "identity")
"""The values of `Content-Encoding` that `inflated` knows."""

# Senders make one member, or a few that they put together; each costs a copy of what follows it.
_MOST_MEMBERS: Final = 64

BodyKind = Literal["json", "values", "lines"]
"""A JSON text, JSON values one after the other (NDJSON), lines of any text."""

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
}
_CHARSET: Final = re.compile(r';\s*charset\s*=\s*"?([^";\s]+)', re.IGNORECASE)
_UTF8: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})

_BOM: Final = b"\xef\xbb\xbf"
_ARRAY: Final = re.compile(rb"[ \t\r\n]*\[")
_POSITION: Final = re.compile(r" \(byte (\d+)\)$")
_BLANK: Final = frozenset({b"\n", b"\r\n"})

# Escapes from left to right, so that in `\\\\ud800` the second backslash begins none. `whole` are
# those that are no half of a pair.
_LONE: Final = re.compile(
    rb"(?P<whole>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\(?!u[dD][89a-fA-F]).)"
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}", re.DOTALL,
)  # fmt: skip

# Values that are joined at a time.
_JOINED: Final = 10_000

_values: Final = msgspec.json.Decoder(msgspec.Raw).decode_lines
_array: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


class BodyRefused(SiemrelayError):
    """A body that cannot be taken: tell its sender, with the position of the fault.

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
    """A body is larger than the limit, or would be when decompressed."""


class Payload(msgspec.Struct, frozen=True, gc=False):
    """`count` records in `payload`, each ended by a line feed and with none inside."""

    payload: bytes
    count: int

    def rows(self) -> Iterator[Payload]:
        """The same in pieces of about ROW_BYTES, cut between records."""
        payload, start, count = self.payload, 0, self.count
        while len(payload) - start > ROW_BYTES:
            end = payload.find(b"\n", start + ROW_BYTES) + 1
            piece = payload[start:end]
            found = _line_feeds(piece)
            yield Payload(piece, found)
            start, count = end, count - found
        if count:
            yield Payload(payload[start:] if start else payload, count)


def body_kind(content_type: str) -> BodyKind | None:
    """How a body of that content type is read; None if it is not. A missing type is JSON."""
    name, _, parameters = content_type.partition(";")
    charset = _CHARSET.match(";" + parameters)
    if charset is not None and charset[1].casefold() not in _UTF8:
        return None
    name = name.strip().casefold()
    if name.startswith("application/") and name.endswith("+json"):
        return "json"
    return _KINDS.get(name)


def inflated(body: bytes, coding: str, limit_bytes: int) -> bytes:
    """The body without its content coding, one of CODINGS.

    Stops as soon as the result is larger than `limit_bytes`: raises BodyTooLarge. Raises
    BodyRefused when the data is damaged or ends too early.
    """
    if coding == "identity":
        return body
    # gzip may have several members one after the other; deflate is the zlib format (RFC 9110).
    window = zlib.MAX_WBITS if coding == "deflate" else zlib.MAX_WBITS | 16
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


def records_of(body: bytes, kind: BodyKind) -> Payload:
    """The records in a body, in order: array elements, values or lines, each on one line.

    Values keep their bytes, but for the space between their parts where that has line feeds. Blank
    lines are no records. Raises BodyRefused when the body is empty or has a fault.
    """
    body = body.removeprefix(_BOM)
    if kind == "lines":
        payload = _lines(body)
    else:
        payload = _json(body, array=kind == "json" and _ARRAY.match(body) is not None)
    if payload is None:
        raise BodyRefused("the body is empty: send JSON, or lines as text/plain")
    return payload


def _json(body: bytes, *, array: bool) -> Payload | None:
    values = decoded(_array if array else _values, body)
    if not values:
        return Payload(b"", 0) if array else None
    payload = b"".join(_joined(values))
    # Between values only; texts have no line feeds inside, or the decoder would have refused them.
    if b"\n" in body and _line_feeds(payload) != len(values):
        payload = b"".join(_joined(msgspec.json.format(bytes(v), indent=-1) for v in values))
    return Payload(payload, len(values))


def _joined(values: Iterable[msgspec.Raw | bytes]) -> Iterator[bytes]:
    # Piece by piece: a join of other objects than bytes takes 80 bytes more for each, which is
    # much for five million numbers.
    values = iter(values)
    while piece := list(islice(values, _JOINED)):
        yield b"\n".join([*piece, b""])


def decoded(decode: Callable[[bytes], T], body: bytes) -> T:
    """What one of msgspec's decoders makes of a body. Raises BodyRefused with the position.

    Half of a surrogate pair, which JSON's grammar has (RFC 8259, 8.2) and no text can hold, becomes
    U+FFFD: JavaScript writes it for a text that was cut in the middle of a character.
    """
    try:
        try:
            return decode(body)
        except msgspec.DecodeError:
            if (mended := _LONE.sub(_replaced, body)) == body:
                raise
            return decode(mended)
    except RecursionError as error:
        raise BodyRefused("the JSON is nested too deeply") from error
    except msgspec.ValidationError as error:
        raise BodyRefused(str(error)) from error
    except msgspec.DecodeError as error:
        found = _POSITION.search(str(error))
        byte = int(found[1]) if found else len(body)
        reason = str(error)[: found.start()] if found else "the JSON ends too early"
        if "trailing" in reason:
            byte -= 1  # of this fault alone the decoder tells the byte after it
        raise BodyRefused(reason, body=body, byte=byte) from error


def _replaced(escape: re.Match[bytes]) -> bytes:
    return escape[0] if escape["whole"] else b"\\ufffd"


def _lines(body: bytes) -> Payload | None:
    if not body.endswith(b"\n"):
        body += b"\n"
    lines = BytesIO(body).readlines()
    if b"\n" in lines or b"\r\n" in lines:
        lines = [line for line in lines if line not in _BLANK]
        body = b"".join(lines)
    return Payload(body, len(lines)) if lines else None


def _line_feeds(payload: bytes) -> int:
    # A count of lines goes by words (memchr) where bytes.count compares byte by byte.
    return len(BytesIO(payload).readlines())
