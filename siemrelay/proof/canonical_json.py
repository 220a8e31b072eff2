"""JSON in the one form of RFC 8785 (JSON Canonicalization Scheme).

Receivers store JSON anew: other spaces, other order of members, other spelling of numbers. The
canonical form is the same for all of them.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec

_decode: Final = msgspec.json.Decoder().decode
_encode_sorted: Final = msgspec.json.Encoder(order="sorted").encode

# Here msgspec's sorted form is another than that of RFC 8785: numbers that are no small integers
# (`float_hook` tells of the others), and names beyond the Basic Multilingual Plane, which RFC 8785
# sorts by UTF-16. What may be one of them is found cheaply, and written with care.
_LONG_NUMBER: Final = b"0" * 16
_ZEROS: Final = bytes(
    ord("0") if chr(code).isdigit() and code < 128 else code for code in range(256)
)
_BEYOND: Final = re.compile(rb"[\xf0-\xf7]")

# From here on Number.prototype.toString of ECMAScript writes an exponent, and below this one.
_EXPONENT_FROM: Final = 21
_EXPONENT_BELOW: Final = -6


class RepeatedName(ValueError):
    """An object has one name twice. Readers differ in which member counts; `value` has the last."""

    def __init__(self, value: Any) -> None:
        super().__init__("an object has one name twice")
        self.value = value


def canonical(text: bytes) -> bytes:
    """The canonical form of one JSON value.

    Raises ValueError if it is none, has a number beyond a double, or is nested too deep.
    """
    return parsed(text)[1]


def parsed(text: bytes) -> tuple[Any, bytes]:
    """A JSON value, and its canonical form. Raises ValueError as `canonical`."""
    try:
        value, form = _parsed(text)
        if _repeats_a_name(text, form):
            raise RepeatedName(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}") from error
    return value, form


def decoded(text: bytes) -> Any:
    """A JSON value. Raises ValueError, also for an object with one name twice."""
    try:
        value = _decode(text)
        if _repeats_a_name(text, msgspec.json.encode(value)):
            raise RepeatedName(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}") from error
    return value


def _parsed(text: bytes) -> tuple[Any, bytes]:
    try:
        value = _decode_without_floats(text)
    except _HasFloats:
        value = _decode(text)
        return value, _written(value).encode()
    if (
        _LONG_NUMBER in text.translate(_ZEROS)
        or b"\\u" in text
        or not (text.isascii() or _BEYOND.search(text) is None)
    ):
        return value, _written(value).encode()
    return value, _encode_sorted(value)


def _repeats_a_name(text: bytes, written: bytes) -> bool:
    """Whether members are in the text that are not in its value, given as it is written anew.

    Each member has quotes, and a text keeps its quotes when it is written anew, but for those that
    stand as an escape of six characters.
    """
    if b"\\u0022" in text:
        try:
            json.loads(text, object_pairs_hook=_members)
        except _Repeated:
            return True
        return False
    return text.count(b'"') != written.count(b'"')


class _Repeated(Exception):
    """One name twice."""


def _members(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise _Repeated


class _HasFloats(Exception):
    """There is a number that is no integer."""


def _refuse(number: str) -> float:
    raise _HasFloats


_decode_without_floats: Final = msgspec.json.Decoder(float_hook=_refuse).decode


def _written(value: Any) -> str:
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return "{" + ",".join(f"{_text(name)}:{_written(value[name])}" for name in names) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _number(value)
    return msgspec.json.encode(value).decode()


def _text(text: str) -> str:
    return msgspec.json.encode(text).decode()


def _number(value: float) -> str:
    """As ECMAScript writes a double (RFC 8785, 3.2.2.3)."""
    try:
        value = float(value)
    except OverflowError as error:
        raise ValueError("a number beyond a double") from error
    if value in (float("inf"), float("-inf")):
        raise ValueError("a number beyond a double")
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = f"{abs(value)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    # The value is 0.DIGITS times ten to the power of `point`.
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    if _EXPONENT_BELOW < point <= _EXPONENT_FROM:
        if point <= 0:
            return f"{sign}0.{'0' * -point}{digits}"
        if len(digits) <= point:
            return f"{sign}{digits}{'0' * (point - len(digits))}"
        return f"{sign}{digits[:point]}.{digits[point:]}"
    power = point - 1
    rest = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{rest}e{'+' if power > 0 else '-'}{abs(power)}"
