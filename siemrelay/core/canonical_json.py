"""JSON in the one form of RFC 8785 (JSON Canonicalization Scheme).

Receivers store JSON anew: other spaces, other order of members, other spelling of numbers. The
canonical form is the same for all of them. In one point it is stricter than the RFC, which takes
every number for a double: integers beyond 2^53 keep all their digits, since SIEMs keep them (64-bit
numbers, or the text as it came), and one digit may be another user. A number beyond a double
(`1e400`), which the RFC refuses, keeps its text: it is another than every number that was sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

# Here msgspec's sorted form is another than that of RFC 8785: names beyond the Basic Multilingual
# Plane, which the RFC sorts by UTF-16. What may have one is found cheaply, and written with care.
_BEYOND: Final = tuple(bytes([first]) for first in range(0xF0, 0xF8))

# So few lines are parsed one by one rather than in halves.
_FEW: Final = 8

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

    Raises ValueError if it is none, or is nested too deep.
    """
    return parsed(text)[1]


def parsed(text: bytes) -> tuple[Any, bytes]:
    """A JSON value, and its canonical form. Raises ValueError as `canonical`.

    Numbers with a fraction or an exponent are `msgspec.Raw`, in their canonical form.
    """
    try:
        value = _decode(text)
        form = _written(value).encode() if needs_care(text) else _encode_sorted(value)
        if _repeats_a_name(text, form):
            raise RepeatedName(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
    return value, form


def parsed_lines(lines: Sequence[bytes]) -> tuple[list[Any], list[bytes], set[int]]:
    """The JSON values of lines and their canonical forms, many at once; and which need care.

    The value of a line without a canonical form is None, and its form the line itself. Those that
    need care were parsed alone: `forms_of` may not be used on them and their parts.
    """
    values, forms, alone = list[Any](), list[bytes](), set[int]()
    waiting = [lines]
    while waiting:
        some = waiting.pop()
        together = objects_and_forms(some)
        if together is not None:
            values += together[0]
            forms += together[1]
        elif len(some) > _FEW:
            middle = len(some) // 2
            waiting += some[middle:], some[:middle]
        else:
            for line in some:
                alone.add(len(values))
                try:
                    value, form = parsed(line)
                except ValueError:
                    value, form = None, line
                values.append(value)
                forms.append(form)
    return values, forms, alone


def objects_of(lines: Sequence[bytes], kind: Any = Any) -> list[Any] | None:
    """The values of `parsed_lines` where none of them needs care, without their forms; else None.

    They may be given to `forms_of`. `kind` is a type of msgspec with the members of the objects in
    the canonical order; None, too, if they have others.
    """
    read = _read_objects(lines, _encode_lines, kind)
    return None if read is None else read[0]


def objects_and_forms(
    lines: Sequence[bytes], kind: Any = Any
) -> tuple[list[Any], list[bytes]] | None:
    """`objects_of` with the canonical forms."""
    read = _read_objects(lines, _encode_sorted_lines, kind)
    return None if read is None else (read[0], read[1][:-1].split(b"\n"))


def _read_objects(
    lines: Sequence[bytes], encode: Callable[[list[Any]], bytes], kind: Any
) -> tuple[list[Any], bytes] | None:
    """Objects that stand one a line, and these written anew; None if one of them may be none, have
    one name twice, or a form that takes care."""
    text = b"\n".join([*lines, b""])
    # Invariant: no value goes beyond its line, and no line has two. A value that goes on in the
    # next line would have `}` before `{` without a comma; checked by
    # test_lines_give_the_same_at_once_as_one_by_one.
    if {line[:1] for line in lines} != {b"{"} or {line[-1:] for line in lines} != {b"}"}:
        return None
    if b"\n" in b"".join(lines) or _hides_quotes(text) or needs_care(text):
        return None
    shorter = 0

    def written_anew(number: str) -> msgspec.Raw:
        nonlocal shorter
        form = _number_form(number)
        shorter += len(number) - len(form)
        return msgspec.Raw(form)

    try:
        values = msgspec.json.Decoder(kind, float_hook=written_anew).decode_lines(text)
        written = encode(values)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    if len(values) != len(lines):
        return None
    # Only a number with a fraction or an exponent is ever written longer than it was read. So if
    # nothing but these is shorter, no member was dropped; counting quotes, as `_repeats_a_name`,
    # takes long.
    if len(written) + shorter != len(text) and text.count(b'"') != written.count(b'"'):
        return None
    return values, written


def forms_of(values: list[Any]) -> list[bytes]:
    """The canonical forms of values of `parsed_lines`, or of parts of them, without care."""
    return _encode_sorted_lines(values)[:-1].split(b"\n") if values else []


def decoded(text: bytes) -> Any:
    """A JSON value. Raises ValueError, also for an object with one name twice."""
    try:
        value = _decode(text)
        if _repeats_a_name(text, _encode(value)):
            raise RepeatedName(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
    return value


def needs_care(text: bytes) -> bool:
    """Whether a JSON text may have names that msgspec sorts otherwise than RFC 8785."""
    if not text.isascii() and any(first in text for first in _BEYOND):
        return True
    return _has_codes(text) and (rb"\ud" in text or rb"\uD" in text)


def _hides_quotes(text: bytes) -> bool:
    """Whether it has quotes that stand as an escape of six characters."""
    return _has_codes(text) and rb"\u0022" in text


def _has_codes(text: bytes) -> bool:
    """Whether characters may stand as their codes. This takes a tenth of a search for one."""
    return b"\\" in text and rb"\u" in text


def _repeats_a_name(text: bytes, written: bytes) -> bool:
    """Whether members are in the text that are not in its value, given as it is written anew.

    Each member has quotes, and a text keeps its quotes when it is written anew, but for those that
    stand as an escape of six characters.
    """
    if _hides_quotes(text):
        return repeats_a_name(text)
    return text.count(b'"') != written.count(b'"')


def repeats_a_name(text: bytes) -> bool:
    """Whether an object in a JSON text has one name twice.

    Raises ValueError or RecursionError for what is not JSON.
    """
    try:
        json.loads(text, object_pairs_hook=_members)
    except _Repeated:
        return True
    return False


class _Repeated(Exception):
    """One name twice."""


def _members(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise _Repeated


def _written(value: Any) -> str:
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return "{" + ",".join(f"{_text(name)}:{_written(value[name])}" for name in names) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    return _text(value)


def _text(value: Any) -> str:
    return _encode(value).decode()


def _number(text: str) -> msgspec.Raw:
    return msgspec.Raw(_number_form(text))


def _number_form(text: str) -> str:
    """A number with a fraction or an exponent as ECMAScript writes it (RFC 8785, 3.2.2.3)."""
    value = float(text)
    written = repr(value)
    if written[-2:] == ".0":
        return written[:-2] if value else "0"
    if "e" in written:
        return _with_exponent(value)
    return text if written[-1] == "f" else written  # inf: beyond a double


def _with_exponent(value: float) -> str:
    """Of a number that Python writes with an exponent, which begins elsewhere in ECMAScript."""
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = f"{abs(value)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).rstrip("0")
    # The value is 0.DIGITS times ten to the power of `point`.
    point = 1 + int(exponent)
    if _EXPONENT_BELOW < point <= _EXPONENT_FROM:
        if point <= 0:
            return f"{sign}0.{'0' * -point}{digits}"
        if len(digits) <= point:
            return f"{sign}{digits}{'0' * (point - len(digits))}"
        return f"{sign}{digits[:point]}.{digits[point:]}"
    power = point - 1
    rest = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{rest}e{'+' if power > 0 else '-'}{abs(power)}"


_decode: Final = msgspec.json.Decoder(float_hook=_number).decode
_writing: Final = msgspec.json.Encoder()
_encode, _encode_lines = _writing.encode, _writing.encode_lines
# Members of objects are sorted, and those of a type stay in its order.
_sorting: Final = msgspec.json.Encoder(order="deterministic")
_encode_sorted, _encode_sorted_lines = _sorting.encode, _sorting.encode_lines
