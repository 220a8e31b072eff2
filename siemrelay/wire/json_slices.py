"""Decodes many JSON values, or a long array, in slices of bounded work. Pure.

A decoder in C holds the interpreter until it is done: a body of 10 KB that inflates to five million
values stops everything for seconds. So a body longer than SLICE_BYTES is cut between values, each
slice is decoded by itself, and the caller may let others run in between.

Where a value ends is guessed first, by the bytes around it: `},` and `{`, or a line feed. The guess
is right exactly when the slice decodes, since the grammar of JSON is deterministic (RFC 8259): text
that begins at a value and is whole values can be nothing else. If it does not, the brackets and
texts of the slice are followed one by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from typing import Final, TypeVar

import msgspec

from siemrelay.core.errors import SiemrelayError
from siemrelay.core.forgiving_json import whole_surrogates

T = TypeVar("T")

SLICE_BYTES: Final = 128 * 1024
"""Decoded at a time: at most 64,000 values, some 10 ms."""

_POSITION: Final = re.compile(r" \(byte (\d+)\)$")

_BLANK: Final = re.compile(rb"[ \t\r\n]+")

# An element of an array that does not begin it is decoded after one of ours.
_BEFORE: Final = b"[0,"

# At the top level: up to the next bracket, text, comma or line feed. Below it: up to the next
# bracket or text with an escape; other texts and innermost brackets are skipped. In a text: up to
# its end. The bounded counts bound the work of one match.
_TOP: Final = re.compile(rb'[^"{}\[\],\n]*(["{}\[\],\n]?)')
_BELOW: Final = re.compile(
    rb'(?>(?:[^"{}\[\]]+|"[^"\\]*"|\[[^"{}\[\]]*\]|\{(?>(?:[^"{}\[\]]+|"[^"\\]*"){0,99})\}){0,2048})'
    rb'(["{}\[\]]?)'
)
# Atomic groups, since CPython 3.11 puts the group behind a possessive one in the wrong place.
_TEXT: Final = re.compile(rb'(?>(?:[^"\\]+|\\.){0,4096})("?)', re.DOTALL)

# More half surrogates than a slice can hold: this is not a text that was cut in the middle of a
# character, and it is refused.
_MOST_LONE: Final = SLICE_BYTES // 6 + 2

# Deeper text is refused by the decoder, which finds that out faster than brackets are followed.
_DEEPEST: Final = 2000


class JsonFault(SiemrelayError):
    """Text that is not the JSON it should be; `byte` counts from 0, None if it has no one place.

    The fault is in the slice that begins at the byte `start`; `values` stand before that.
    """

    def __init__(self, reason: str, byte: int | None, *, values: int = 0, start: int = 0) -> None:
        super().__init__(reason)
        self.reason, self.byte, self.values, self.start = reason, byte, values, start


def decoded_json(decode: Callable[[bytes], T], text: bytes) -> T:
    """The result of a msgspec decoder for JSON. Raises JsonFault with the position.

    Half of a surrogate pair, which JSON's grammar has (RFC 8259, 8.2) and no text can hold, becomes
    U+FFFD: JavaScript writes it for a text that was cut in the middle of a character.
    """
    try:
        try:
            return decode(text)
        except msgspec.DecodeError:
            if (repaired := whole_surrogates(text, _MOST_LONE)) == text:
                raise
            return decode(repaired)
    except RecursionError as error:
        raise JsonFault("the JSON is nested too deeply", None) from error
    except msgspec.ValidationError as error:
        raise JsonFault(str(error), None) from error
    except msgspec.DecodeError as error:
        found = _POSITION.search(str(error))
        byte = int(found[1]) if found else len(text)
        reason = str(error)[: found.start()] if found else "the JSON ends too early"
        if "trailing" in reason:
            byte -= 1  # for this fault alone the decoder gives the byte after it
        raise JsonFault(reason, byte) from error


def array_slices(
    body: bytes, decode: Callable[[bytes], list[T]], start: int, size: int = SLICE_BYTES
) -> Iterator[list[T]]:
    """The elements of the array whose bracket is at `start`, slice by slice; some may be empty.

    `decode` takes an array. Raises JsonFault.
    """
    at, before, count = start + 1, b"[", 0
    while True:
        cut, elements = len(body), list[T]()
        if len(body) - at > size:
            cut, elements = yield from _guessed(
                body, at, _array_ends(body, at, at + size), before, b"]", decode
            )
            if not elements:
                cut = yield from _followed(body, at, at + size, b",")
        whole = cut == len(body)
        if not elements:
            elements = _slice(body, at, cut, count, before, b"" if whole else b"]", decode)
        elements = elements if before == b"[" else elements[1:]
        if not elements and not whole:  # two commas, or one before the first element
            _slice(body, at, cut + 1, count, before, b"]", decode)
        count += len(elements)
        yield elements
        if whole:
            return
        at, before = cut + 1, _BEFORE


def value_slices(
    body: bytes, decode: Callable[[bytes], list[T]], size: int = SLICE_BYTES
) -> Iterator[list[T]]:
    """The values of a body that has one after the other, slice by slice; some may be empty.

    `decode` takes values one after the other. Raises JsonFault.
    """
    at = count = 0
    while at < len(body):
        if (blank := _BLANK.match(body, at)) and blank.end() - at >= size:
            # Blank lines are looked at one by one wherever values are looked for.
            at = min(blank.end(), len(body) - 1)
        cut, values = len(body), list[T]()
        if len(body) - at > size:
            cut, values = yield from _guessed(
                body, at, _value_ends(body, at, at + size), b"", b"", decode
            )
            if not values:
                cut = yield from _followed(body, at, at + size, b"\n")
        if not values:
            values = _slice(body, at, cut, count, b"", b"", decode)
        count += len(values)
        yield values
        at = cut


def _slice(
    body: bytes, start: int, end: int, count: int, before: bytes, after: bytes,
    decode: Callable[[bytes], list[T]],
) -> list[T]:  # fmt: skip
    whole = not before and not after and start == 0 and end == len(body)
    text = body if whole else before + body[start:end] + after
    try:
        return decoded_json(decode, text)
    except JsonFault as fault:
        byte = None if fault.byte is None else start + max(fault.byte - len(before), 0)
        raise JsonFault(fault.reason, byte, values=count, start=start) from fault


def _guessed(
    body: bytes, start: int, ends: Iterator[int], before: bytes, after: bytes,
    decode: Callable[[bytes], list[T]],
) -> Generator[list[T], None, tuple[int, list[T]]]:  # fmt: skip
    """The first end of a slice that proves to be one, with its values; none if it finds none."""
    for end in ends:
        yield []
        try:
            return end, decoded_json(decode, before + body[start:end] + after)
        except JsonFault:
            continue
    return len(body), []


def _array_ends(body: bytes, start: int, end: int) -> Iterator[int]:
    """Possible ends of a slice of an array: its last commas, those between objects first."""
    between = body.rfind(b"}", start, end)
    for _ in range(3):
        if between < 0:
            break
        comma = between + 1
        while comma < end and body[comma] in b" \t\r\n":
            comma += 1
        if comma < end and body[comma] == b","[0] and body[comma + 1 : end].lstrip()[:1] == b"{":
            yield comma
            break
        between = body.rfind(b"}", start, between)
    last = body.rfind(b",", start, end)
    if last > 0:
        yield last


def _value_ends(body: bytes, start: int, end: int) -> Iterator[int]:
    """Possible ends of a slice of values: behind the last line feed, or between two objects."""
    if (line_feed := body.rfind(b"\n", start, end)) > 0:
        yield line_feed + 1
    if (between := body.rfind(b"}{", start, end)) > 0:
        yield between + 1


def _followed(
    body: bytes, start: int, least: int, separator: bytes
) -> Generator[list[T], None, int]:
    """Follow brackets and texts to the first end of a value from `least` on; returns it.

    With commas it is where the comma is, with line feeds behind the value. Text that is not JSON
    has an end somewhere, up to the end of the body: decoding it finds the fault.
    """
    at, depth = start, 0
    in_text = False
    while at < len(body):
        yield []
        for _ in range(64):
            found = (_TEXT if in_text else _BELOW if depth else _TOP).match(body, at)
            assert found is not None, "it matches nothing at least"
            if found.end() == at:  # a backslash ends the body
                return len(body)
            mark, at = found[1], found.end()
            if in_text:
                in_text = not mark
            elif mark == b'"':
                in_text = True
            elif mark in (b"{", b"["):
                depth += 1
                if depth > _DEEPEST:
                    return len(body)
            elif mark in (b"}", b"]"):
                depth -= 1
                if depth < 0:
                    return len(body)
                if not depth and separator != b"," and at >= least:
                    return at
            elif mark == separator and not depth and at >= least:
                return at if separator != b"," else at - 1
            if at >= len(body):
                break
    return len(body)
