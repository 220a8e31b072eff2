"""Reads JSON that deviates from RFC 8259 as records in the field do, within bounded work."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec

# The work of one call is bounded to some 50 ms, since nothing else runs meanwhile.
LONG_RECORD_BYTES: Final = 256 * 1024
MOST_VALUES: Final = 100_000
"""A longer record with more commas and colons than this is not read as JSON."""


def forgiving_json(data: bytes | msgspec.Raw) -> Any:
    """The value of JSON text that may deviate from JSON as texts in the field do.

    Forgiven are a byte order mark, control characters in texts, half surrogate pairs and bytes that
    are not UTF-8 (both replaced by U+FFFD). Numbers without a finite value here (`NaN`, `1e999`,
    integers of thousands of digits) stay text. Of a name that comes twice in an object the last
    value counts, as for most readers (RFC 8259, 4).

    Raises ValueError or RecursionError for what is not JSON, and ValueError for what is longer than
    `LONG_RECORD_BYTES` and has more than `MOST_VALUES` values, or escapes beside a deviation.
    """
    _refuse_more_than_most(b",:", data)
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        _refuse_more_than_most(b"\\", data)
        text = bytes(data).decode("utf-8", "replace").lstrip("\ufeff")
        repaired = whole_surrogates(text.encode())
    try:
        return _decode(repaired)
    except msgspec.DecodeError:
        return json.loads(
            repaired, strict=False, parse_int=_integer, parse_float=_finite, parse_constant=str
        )


def _refuse_more_than_most(characters: bytes, data: bytes | msgspec.Raw) -> None:
    if len(data) > LONG_RECORD_BYTES:
        written = bytes(data)
        if sum(map(written.count, characters)) > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES} values or escapes")


def may_hold_long_record(payload: bytes) -> bool:
    """Whether a record in it may be longer than `LONG_RECORD_BYTES`; costs next to nothing.

    A record of that length leaves at least one window of half of it without a line feed.
    """
    half = LONG_RECORD_BYTES // 2
    if len(payload) <= half:
        return False
    return any(payload.find(b"\n", at, at + half) < 0 for at in range(0, len(payload) - half, half))


def whole_surrogates(data: bytes, most: int = 0) -> bytes:
    """UTF-8 with U+FFFD for each half of a surrogate pair that stands alone in JSON's escapes.

    So no text of an event ever holds one, and every text can be encoded. Data that has `most` of
    them or more (0: any number), or that is not UTF-8, is returned as it is.
    """
    # Without a callback for each: a megabyte of escapes is 170,000. An escaped backslash is hidden
    # behind bytes that UTF-8 does not have, so that what follows it is no escape.
    if b"\\u" not in data or b"\xff" in data:
        return data
    hidden, found = _HALF_SURROGATE.subn(rb"\\ufffd", data.replace(rb"\\", b"\xff\xff"), most)
    return data if most and found >= most else hidden.replace(b"\xff\xff", rb"\\")


_HIGH: Final = rb"\\u[dD][89abAB][0-9a-fA-F]{2}"
_LOW: Final = rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_HALF_SURROGATE: Final = re.compile(rb"%b(?!%b)|(?<!%b)%b" % (_HIGH, _LOW, _HIGH, _LOW))

_decode: Final = msgspec.json.Decoder().decode


def _integer(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:  # Python reads no more than some 4,300 digits
        return text


def _finite(text: str) -> float | str:
    value = float(text)
    return value if abs(value) < float("inf") else text
