"""How messages are told apart on a byte stream (RFC 6587): newline, octet counting, NUL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

Framer = Callable[[Sequence[bytes]], bytes]


def newline(messages: Sequence[bytes]) -> bytes:
    """Each message ended by LF (RFC 6587, 3.4.2); formats never write a raw LF themselves."""
    return b"\n".join(messages) + b"\n"


def octet_counting(messages: Sequence[bytes]) -> bytes:
    """`LENGTH SP MESSAGE`, one after another (RFC 6587, 3.4.1)."""
    return b"".join([b"%d %b" % (len(message), message) for message in messages])


def nul(messages: Sequence[bytes]) -> bytes:
    """Each message ended by NUL, as GELF over TCP and some receivers want it."""
    return b"\0".join(messages) + b"\0"


FRAMERS: Final[dict[str, Framer]] = {
    "newline": newline,
    "octet-counting": octet_counting,
    "nul": nul,
}
