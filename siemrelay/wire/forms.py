"""One field of a form in `application/x-www-form-urlencoded`, in steps of bounded work. Pure."""

from __future__ import annotations

from collections.abc import Generator
from typing import Final
from urllib.parse import unquote_to_bytes

from siemrelay.wire.http_bodies import BodyRefused

# Decoded between two steps: some milliseconds where every byte is escaped.
_SLICE_BYTES: Final = 16 * 1024

# Forms that carry JSON have a field or a few.
_MOST_FIELDS: Final = 64


def form_value(body: bytes, name: str) -> Generator[None, None, bytes]:
    """The value of the field in the body of a form (WHATWG URL, 5.1). Raises BodyRefused."""
    for pair in body.split(b"&", _MOST_FIELDS):
        written, sign, value = pair.partition(b"=")
        if sign and unquote_to_bytes(written[:_SLICE_BYTES]) == name.encode():
            return (yield from _unquoted(value.replace(b"+", b" ")))
    raise BodyRefused(f"the form has no field `{name}`")


def _unquoted(value: bytes) -> Generator[None, None, bytes]:
    pieces, at = [], 0
    while at < len(value):
        end = at + _SLICE_BYTES
        # An escape is not cut in two.
        if (escape := value.rfind(b"%", max(at, end - 2), end)) > at:
            end = escape
        pieces.append(unquote_to_bytes(value[at:end]))
        at = end
        yield
    return b"".join(pieces)
