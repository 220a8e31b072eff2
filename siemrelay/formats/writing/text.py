"""Text rules that several formats share: control characters, UTF-8."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from siemrelay.core.lines import RecordLines, is_utf8

# Unicode's control pictures keep a control character visible and countable where the raw one
# would end a record (CR, LF), end a C string (NUL) or steer a terminal (ESC).
CONTROL_PICTURES: Final = {**{code: 0x2400 + code for code in range(0x20)}, 0x7F: 0x2421}
_CONTROLS: Final = bytes(CONTROL_PICTURES)
_CONTROLS_BUT_LF: Final = _CONTROLS.replace(b"\n", b"")
_json: Final = msgspec.json.Encoder().encode
_NO_CONTROLS: Final = bytes(set(range(256)).difference(CONTROL_PICTURES))


def text_of(value: Any) -> str:
    """A value of an event as text: strings as they are, everything else as JSON writes it."""
    kind = type(value)
    if kind is str:
        text: str = value
        return text
    if kind is bool or value is None:
        return _WORDS[value]
    return str(value) if kind is int else json.dumps(value, ensure_ascii=False)


_WORDS: Final[dict[bool | None, str]] = {True: "true", False: "false", None: "null"}


def replaced(text: str, old: str, new: str) -> str:
    """`str.replace`, much faster for the usual text that has nothing to replace."""
    return text.replace(old, new) if old in text else text


def is_plain(text: str) -> bool:
    """Whether the text has neither control characters, `"`, `\\` nor half surrogate pairs.

    This is the cheapest test of every character of a long text.
    """
    try:
        written = _json(text)
    except UnicodeEncodeError:
        return False
    return b"\\" not in written and b"\x7f" not in written


def visible(text: str, keep: str = "") -> str:
    """`text` with every control character but those in `keep` as its picture: one line anywhere.

    Returns the very same object if there is none.
    """
    if is_plain(text):
        return text
    # Replaced one by one: texts have few different ones, and `str.translate` looks up every
    # character of theirs.
    for code in set(text.encode("utf-8", "surrogatepass").translate(None, _NO_CONTROLS)):
        if chr(code) not in keep:
            text = text.replace(chr(code), chr(CONTROL_PICTURES[code]))
    return text


# Characters beyond ASCII that hide or reorder text on a screen: C1 controls (0x9b begins a terminal
# command), line and paragraph separators, and the marks of bidirectional text.
_STEERING: Final = re.compile("[\x80-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def sanitize_for_display(text: str, most_characters: int | None = None) -> str:
    """Text from outside as one line that no terminal takes for a command.

    Longer text is cut at a space: half a secret would escape redaction.
    """
    if most_characters is not None and len(text) > most_characters:
        text = f"{text[: most_characters + 1].rpartition(' ')[0]} ..."
    text = _STEERING.sub("\ufffd", visible(text))
    return text.encode("utf-8", "replace").decode()


def forwarded(records: Sequence[bytes]) -> Sequence[bytes]:
    """Records as messages: the same bytes, but for what would break a line or is not UTF-8.

    A CR at the end belongs to the line's ending and is left out.
    """
    if are_text_lines(records):
        return records
    texts = [record.rstrip(b"\r") for record in records]
    return one_line_each(
        [t if is_utf8(t) else t.decode("utf-8", "replace").encode() for t in texts]
    )


def are_text_lines(records: Sequence[bytes]) -> bool:
    """Whether every record is UTF-8 without control characters, tested for all at once."""
    if type(records) is RecordLines:
        return _lacks(_CONTROLS_BUT_LF, records.payload) and records.are_utf8
    # Joined by LF, or two halves of a character could make a whole one.
    return has_no_controls(records) and is_utf8(b"\n".join(records))


def has_no_controls(messages: Sequence[bytes]) -> bool:
    """Whether no message has a control character, tested for all of them at once."""
    return _lacks(_CONTROLS, b"".join(messages))


def _lacks(characters: bytes, data: bytes) -> bool:
    # To search for one after the other (memchr) takes a third of the time of `bytes.translate`.
    return not any(character in data for character in characters)


def one_line_each(messages: list[bytes]) -> list[bytes]:
    """UTF-8 messages, in which every control character becomes its picture.

    Halves the list until it finds those that have one: they are few, and a test of each message
    costs more than the rest of a format.
    """
    if has_no_controls(messages):
        return messages
    if len(messages) == 1:
        return [visible(messages[0].decode()).encode()]
    half = len(messages) // 2
    return one_line_each(messages[:half]) + one_line_each(messages[half:])


def cut_utf8(message: bytes, limit: int, mark: bytes = b"...[cut]") -> bytes:
    """`message` within `limit` bytes, ended by `mark` when cut, never inside a character."""
    if len(message) <= limit:
        return message
    end = max(limit - len(mark), 0)
    while end and (message[end] & 0xC0) == 0x80:
        end -= 1
    return (message[:end] + mark)[:limit]
