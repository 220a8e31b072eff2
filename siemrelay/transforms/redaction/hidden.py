"""Texts in which secrets are hidden: HTML entities, %-encoding, unusual characters, base64.

A bounded attempt: what an operator can rely on is in `config/README.md`.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator
from html import unescape
from typing import Final
from unicodedata import decimal, normalize

# Entities of the characters that kinds of secrets have.
_ENTITY: Final = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[a-z]{2,8});")
# Of letters, digits, `@`, `:` and `=`: in an address these need no encoding, or separate names.
_PERCENT: Final = re.compile(r"%(?:3[0-9AaDd]|4[0-9A-Fa-f]|5[0-9Aa]|6[1-9A-Fa-f]|7[0-9Aa])")
# Zero-width characters, soft hyphens and marks of direction.
_INVISIBLE: Final = (
    "\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff"
)
_INVISIBLES: Final = re.compile(f"[{_INVISIBLE}]")
# Forms of letters and digits, other digits, and letters of Greek and Cyrillic among those of Latin.
_FORMS: Final = (
    "\u0660-\u0669\u06f0-\u06f9\u0966-\u096f\u09e6-\u09ef\u2070-\u209c\u2460-\u24ff"
    "\uff01-\uff5e\U0001d400-\U0001d7ff"
)
_UNUSUAL: Final = re.compile(
    f"[{_INVISIBLE}{_FORMS}]|[A-Za-z0-9@][\u0370-\u04ff]|[\u0370-\u04ff][A-Za-z0-9@]"
)
_LOOK_ALIKES: Final = str.maketrans(
    "АВЕЅІЈКМНОРСТУХаеѕіјорсухԁһΑΒΕΖΗΙΚΜΝΟΡΤΥΧο٫․",  # noqa: RUF001 - they only look like Latin ones
    "ABESIJKMHOPCTYXaesijopcyxdhABEZHIKMNOPTYXo..",
)

# A shorter word has no room for a secret beside its name; of a longer one nothing is known.
_SHORTEST: Final = b"A" * 20
_LONGEST: Final = 65536
_WORDS, _WORDS_FOR_URLS = (
    bytes(
        ord("A" if code < 128 and (chr(code).isalnum() or chr(code) in others) else ".")
        for code in range(256)
    )
    for others in ("+/_", "+/_-")
)
"""Characters of base64 as `A`, others as `.`: to look at them by hand is ten times as fast."""

_URL_SAFE: Final = str.maketrans("-_", "+/")


def _words(text: str) -> Iterator[tuple[int, int]]:
    """Words that may be base64; without a capital letter one is a path or a hash."""
    written = text.encode("ascii", "replace")
    marks = written.translate(_WORDS)
    at = marks.find(_SHORTEST)
    if at < 0:
        return
    wide = written.translate(_WORDS_FOR_URLS)
    while at >= 0:
        start, end = wide.rfind(b".", 0, at) + 1, wide.find(b".", at)
        end = len(wide) if end < 0 else end
        word = written[start:end]
        if word != word.lower() and len(word) <= _LONGEST:
            yield start, end
        at = marks.find(_SHORTEST, end)


def may_hide(text: str) -> bool:
    """Whether `shown` or `blobs` might find something. Fast for a usual text."""
    return (
        ("&" in text and _ENTITY.search(text) is not None)
        or ("%" in text and _PERCENT.search(text) is not None)
        or (not text.isascii() and _UNUSUAL.search(text) is not None)
        or next(blobs(text), None) is not None
    )


def shown(text: str) -> str:
    """The text as a person would read it: decoded, and in plain letters and digits."""
    if "&" in text:
        text = _ENTITY.sub(lambda entity: unescape(entity[0]), text)
    if "%" in text:
        text = _PERCENT.sub(lambda code: chr(int(code[0][1:], 16)), text)
    if text.isascii() or _UNUSUAL.search(text) is None:
        return text
    text = normalize("NFKC", _INVISIBLES.sub("", text)).translate(_LOOK_ALIKES)
    return "".join(map(_digit, text))


def _digit(character: str) -> str:
    if character.isascii():
        return character
    value = decimal(character, -1)
    return character if value < 0 else str(value)


def blobs(text: str) -> Iterator[tuple[int, int, str]]:
    """Where base64 stands that is text, and that text."""
    for start, end in _words(text):
        written = text[start:end].translate(_URL_SAFE)
        try:
            plain = b64decode(written + "=" * (-len(written) % 4)).decode()
        except ValueError:
            continue
        if plain.isprintable() or plain.translate(_BREAKS).isprintable():
            while text[end : end + 1] == "=":
                end += 1
            yield start, end, plain


_BREAKS: Final = dict.fromkeys(map(ord, "\r\n\t"), " ")
