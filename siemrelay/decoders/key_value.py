"""`key=value key="quoted value"` inside messages, and this relay's own RFC 3164 lines."""

from __future__ import annotations

import re
from typing import Any, Final

_NAME: Final = r"[A-Za-z_@][A-Za-z0-9_.@-]{0,63}"
_PAIR: Final = re.compile(
    rf'[\s,;]({_NAME})=(?:"((?:[^"\\]|\\.)*+)"|([^\s,;"]*+))(?=[\s,;]|$)', re.DOTALL
)
_ESCAPED: Final = re.compile(r'\\(["\\\]])')

# `Type: message (id="…" time="…")`: what `format: rfc3164` writes.
_QUOTED: Final = rf'{_NAME}="(?:[^"\\]|\\.)*+"'
_OWN: Final = re.compile(
    rf'([^:()"]{{1,256}})(?:: (.*))? \(({_QUOTED}(?: {_QUOTED})*+)\)', re.DOTALL
)
_OWN_END: Final = '")'

# One pair may be part of a sentence; so many are a record.
_LEAST: Final = 2


def key_values(text: str) -> dict[str, Any] | None:
    """The pairs in a message, and the message itself; None if it has hardly any.

    Where a key comes twice the first one counts.
    """
    if text.count("=") < _LEAST:
        return None
    own = _OWN.fullmatch(text) if text.endswith(_OWN_END) else None
    pairs = {
        name: (_ESCAPED.sub(r"\1", quoted) if "\\" in quoted else quoted) or plain
        for name, quoted, plain in reversed(_PAIR.findall(f" {own[3] if own else text}"))
    }
    if own is not None:
        pairs["type"] = own[1]
        if own[2] is not None:
            pairs["message"] = own[2]
        return pairs
    if len(pairs) < _LEAST:
        return None
    # As long as it names no message of its own, it is the message.
    pairs.setdefault("message", text)
    return pairs
