"""JSON as it stands in messages: on one line, without control characters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from siemrelay.formats.writing.columns import Column, Pair

_encode: Final = msgspec.json.Encoder().encode

json_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
"""The members of a JSON object, their values as they are written."""


def message_of(value: Any) -> bytes:
    """A struct or mapping as JSON on one line, without any control character.

    `msgspec.Raw` in it must be JSON already. Half surrogate pairs, which UTF-8 cannot carry, become
    `?`.
    """
    try:
        message = _encode(value)
    except UnicodeEncodeError:
        message = json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":")).encode()
    # JSON lets DEL stand as it is; terminals do not.
    return message.replace(b"\x7f", b"\\u007f") if b"\x7f" in message else message


def json_escape(text: str) -> str:
    """`text` as a JSON text without the quotes around it; the very same object if that is it."""
    try:
        written = _encode(text)
    except UnicodeEncodeError:
        return message_of(text)[1:-1].decode()
    if b"\\" in written or b"\x7f" in written:
        return written[1:-1].replace(b"\x7f", b"\\u007f").decode()
    return text


def member(name: str, column: Column, before: str = "") -> Pair:
    """A member of many objects, in each that has a text for it."""
    return f'{before}"{name}":"', column.escaped(json_escape), '"'


def members(columns: Mapping[str, Column]) -> list[Pair]:
    """Several members of many objects."""
    return [member(name, column) for name, column in columns.items()]


def _plain(value: Any) -> Any:
    """`value` in what `json` knows, with `?` for half surrogate pairs."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_plain(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, msgspec.Raw):
        return msgspec.json.decode(value)
    if isinstance(value, msgspec.Struct):
        members = ((field, getattr(value, field.name)) for field in msgspec.structs.fields(value))
        return {
            field.encode_name: _plain(inner)
            for field, inner in members
            if not value.__struct_config__.omit_defaults or inner != field.default
        }
    return value
