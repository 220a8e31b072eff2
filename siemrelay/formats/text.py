"""Text rules that several formats share: control characters, severities, UTF-8."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

# Unicode's control pictures keep a control character visible and countable where the raw one
# would end a record (CR, LF), end a C string (NUL) or steer a terminal (ESC).
CONTROL_PICTURES: Final = {**{code: 0x2400 + code for code in range(0x20)}, 0x7F: 0x2421}

_SYSLOG_SEVERITY: Final = (6, 6, 6, 6, 4, 4, 4, 3, 3, 2, 2)


def syslog_severity(severity: int) -> int:
    """The event's 0 to 10 on syslog's scale: 6 informational, 4 warning, 3 error, 2 critical."""
    return _SYSLOG_SEVERITY[severity]


def text_of(value: Any) -> str:
    """A value of an event as text: a text as it is, everything else as JSON writes it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def visible(text: str) -> str:
    """`text` with every control character as its picture, so that it is one line anywhere."""
    return text if text.isprintable() else text.translate(CONTROL_PICTURES)


def utf8(messages: Iterable[str]) -> list[bytes]:
    """Each message as UTF-8; lone surrogates, which UTF-8 cannot carry, become `?`.

    One by one instead of joined: a single character outside Latin-1 would widen the whole run.
    """
    messages = list(messages)
    try:
        return list(map(str.encode, messages))
    except UnicodeEncodeError:
        return [message.encode("utf-8", "replace") for message in messages]


def cut_utf8(message: bytes, limit: int, mark: bytes = b"...[cut]") -> bytes:
    """`message` within `limit` bytes, ended by `mark` when cut, never inside a character."""
    if len(message) <= limit:
        return message
    end = max(limit - len(mark), 0)
    while end and (message[end] & 0xC0) == 0x80:
        end -= 1
    return (message[:end] + mark)[:limit]
