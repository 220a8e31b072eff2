"""JSON as it stands in messages: on one line, without control characters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from siemrelay.formats.writing.columns import Column, Pair, escaped

_encode: Final = msgspec.json.Encoder().encode

json_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
"""The members of a JSON object, their values as they are written."""


def message_of(value: Any) -> bytes:
    """A struct or mapping as JSON on one line, without any control character.

    `msgspec.Raw` in it must be JSON already.
    """
    message = _encode(value)
    # JSON lets DEL stand as it is; terminals do not.
    return message.replace(b"\x7f", b"\\u007f") if b"\x7f" in message else message


def json_escape(text: str) -> str:
    """`text` as a JSON text without the quotes around it; the very same object if that is it."""
    written = _encode(text)
    if b"\\" in written or b"\x7f" in written:
        return written[1:-1].replace(b"\x7f", b"\\u007f").decode()
    return text


def member(name: str, column: Column, before: str = "") -> Pair:
    """A member of many objects, in each that has a text for it."""
    return f'{before}"{name}":"', column.escaped(json_escape), '"'


def members(columns: Mapping[str, Column], before: str = "") -> list[Pair]:
    """Several members of many objects; each as `member` makes it."""
    shown = escaped([*columns.values()], json_escape)
    return [
        (f'{before}"{name}":"', column, '"') for name, column in zip(columns, shown, strict=True)
    ]
