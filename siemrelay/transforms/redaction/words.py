"""Finds values in text as whole words, in every form in which records write them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from siemrelay.transforms.redaction.rules import Token

SHORTEST_AGAIN: Final = 4
"""Characters of a secret that is looked for again; a shorter one stands by chance in words."""

_LONGEST_WORD: Final = 256
"""Characters; a longer value that has more letters beside it is a secret all the same."""


def written_forms(value: str) -> Sequence[str]:
    """The value as records may hold it: with the escapes of JSON, CEF, RFC 5424 and CSV."""
    forms = (
        value,
        value.replace("\\", "\\\\").replace('"', '\\"'),
        value.replace("\\", "\\\\").replace("=", "\\=").replace("|", "\\|"),
        re.sub(r'([\\"\]])', r"\\\1", value),
        value.replace("/", "\\/"),
        value.replace('"', '""'),
    )
    return list(dict.fromkeys(forms))


def without_words(text: str | None, values: Mapping[str, Token]) -> str | None:
    """A message without the values of other fields, each a word of it or several.

    A message is often the record itself, of which the fields were read. A value of one character
    stays: it would be all over the text.
    """
    for value, token in values.items():
        if text and len(value) > 1 and (value in text or "\\" in text):
            for form in written_forms(value):
                text, _ = without_word(text, form, token(value))
    return text or None


def without_word(text: str, form: str, token: str) -> tuple[str, int]:
    """The text with a token for a value as it is written, and how often it was there.

    A value is not a part of a longer word, unless it is longer than words are.
    """
    parts, at, found = list[str](), 0, text.find(form)
    first, last = (form[0], form[-1]) if len(form) <= _LONGEST_WORD else ("", "")
    while found >= 0:
        end = found + len(form)
        left, right = text[found - 1 : found] if found else "", text[end : end + 1]
        if _goes_on(left, first) or _goes_on(right, last):
            found = text.find(form, found + 1)
            continue
        parts += (text[at:found], token)
        at, found = end, text.find(form, end)
    return ("".join([*parts, text[at:]]), len(parts) // 2) if parts else (text, 0)


def _goes_on(beside: str, edge: str) -> bool:
    """Whether a character makes a longer word of the one that begins or ends with `edge`."""
    return edge.isalnum() and (beside.isalnum() or beside == "_")
