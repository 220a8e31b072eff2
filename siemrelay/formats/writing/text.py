"""Text rules that several formats share: control characters, severities, UTF-8."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any, Final

import msgspec

# Unicode's control pictures keep a control character visible and countable where the raw one
# would end a record (CR, LF), end a C string (NUL) or steer a terminal (ESC).
CONTROL_PICTURES: Final = {**{code: 0x2400 + code for code in range(0x20)}, 0x7F: 0x2421}
_CONTROLS: Final = bytes(CONTROL_PICTURES)
_json: Final = msgspec.json.Encoder().encode
_NO_CONTROLS: Final = bytes(set(range(256)).difference(CONTROL_PICTURES))

_SYSLOG_SEVERITY: Final = (6, 6, 6, 6, 4, 4, 4, 3, 3, 2, 2)


def syslog_severity(severity: int) -> int:
    """The event's 0 to 10 on syslog's scale: 6 informational, 4 warning, 3 error, 2 critical."""
    return _SYSLOG_SEVERITY[severity]


def text_of(value: Any) -> str:
    """A value of an event as text: a text as it is, everything else as JSON writes it."""
    kind = type(value)
    if kind is str:
        text: str = value
        return text
    if kind is bool or value is None:
        return _WORDS[value]
    return str(value) if kind is int else json.dumps(value, ensure_ascii=False)


_WORDS: Final[dict[bool | None, str]] = {True: "true", False: "false", None: "null"}


def replaced(text: str, old: str, new: str) -> str:
    """`str.replace`, much faster where there is nothing to replace: counting is slower."""
    return text.replace(old, new) if old in text else text


def is_plain(text: str) -> bool:
    """Whether the text has neither control characters, `"`, `\\` nor half surrogate pairs.

    The cheapest look at every character of a long text.
    """
    try:
        written = _json(text)
    except UnicodeEncodeError:
        return False
    return b"\\" not in written and b"\x7f" not in written


def visible(text: str, keep: str = "") -> str:
    """`text` with every control character as its picture, so that it is one line anywhere.

    Those in `keep` stay as they are. The very same object if it has none.
    """
    if is_plain(text):
        return text
    # Replaced one by one: texts have few different ones, and `str.translate` looks up every
    # character of theirs.
    for code in set(text.encode("utf-8", "surrogatepass").translate(None, _NO_CONTROLS)):
        if chr(code) not in keep:
            text = text.replace(chr(code), chr(CONTROL_PICTURES[code]))
    return text


# What turns or hides text on a screen without being a control character of ASCII's: C1 (0x9b
# begins a terminal's command), line and paragraph ends, and the marks that turn writing around.
_STEERING: Final = re.compile("[\x80-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def harmless(text: str, most_characters: int | None = None) -> str:
    """Words from outside for a person's eyes: valid text of one line that steers no terminal.

    Longer ones are cut at the end of a word, so that no half of a secret is left that could not be
    told any more.
    """
    if most_characters is not None and len(text) > most_characters:
        text = f"{text[: most_characters + 1].rpartition(' ')[0]} ..."
    text = _STEERING.sub("\ufffd", visible(text))
    return text.encode("utf-8", "replace").decode()


def utf8(texts: Iterable[str]) -> list[bytes]:
    """Each text as UTF-8; lone surrogates, which UTF-8 cannot carry, become `?`.

    One by one instead of joined: a single character outside Latin-1 would widen the whole run. And
    as they come, so that each takes the memory of the one before, which is in the cache still.
    """
    return list(map(str.encode, texts, repeat("utf-8"), repeat("replace")))


def is_utf8(data: bytes) -> bool:
    """Whether the bytes are UTF-8."""
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def has_no_controls(messages: Sequence[bytes], but: str = "") -> bool:
    """Whether no message has a control character, `but` perhaps these: all of them in one go."""
    joined = b"".join(messages)
    looked_for = _CONTROLS.translate(None, but.encode()) if but else _CONTROLS
    return len(joined.translate(None, looked_for)) == len(joined)


def one_line_each(messages: list[bytes], keep: str = "") -> list[bytes]:
    """UTF-8 messages, in which every control character but those in `keep` becomes its picture.

    Halved down to those that have one: they are few, and looking at each by itself costs more than
    all the rest of a format.
    """
    if has_no_controls(messages, keep):
        return messages
    if len(messages) == 1:
        return [visible(messages[0].decode(), keep).encode()]
    half = len(messages) // 2
    return one_line_each(messages[:half], keep) + one_line_each(messages[half:], keep)


def cut_utf8(message: bytes, limit: int, mark: bytes = b"...[cut]") -> bytes:
    """`message` within `limit` bytes, ended by `mark` when cut, never inside a character."""
    if len(message) <= limit:
        return message
    end = max(limit - len(mark), 0)
    while end and (message[end] & 0xC0) == 0x80:
        end -= 1
    return (message[:end] + mark)[:limit]
