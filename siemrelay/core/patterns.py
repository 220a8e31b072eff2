"""Patterns that somebody configured, matched in linear time by RE2 (an extra).

Python's own engine tries every way to match: with a pattern like `(a+)+b` one record of thirty
letters stops the relay, and whoever writes the log may choose the record. RE2 has no such patterns:
it refuses look-around and back-references, and never takes longer than the text is long.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from siemrelay.core.extras import REGEX


class LinearPattern:
    """A compiled pattern."""

    def __init__(self, written: str) -> None:
        """Raises ValueError with a sentence for a person."""
        if REGEX.missing():
            raise ValueError(f"{REGEX.absence}; {REGEX.advice}")
        import re2  # an extra without types

        options = re2.Options()
        options.log_errors = False
        try:
            self._compiled: Any = re2.compile(written.encode(), options)
        except re2.error as error:
            why = error.args[0].decode("utf-8", "replace")
            raise ValueError(
                f"{why}: patterns are RE2's, which has no look-around and no back-references"
            ) from error
        names = sorted(self._compiled.groupindex.items(), key=lambda item: item[1])
        self.names = tuple(name.decode() for name, _ in names)
        """Of its named groups, in order."""
        self._numbers = [number for _, number in names]

    def groups(self, text: str) -> dict[str, str] | None:
        """The matches of the named groups, where the pattern matches all of the text."""
        match = self._compiled.fullmatch(text.encode())
        if match is None:
            return None
        found = zip(self.names, map(match.group, self._numbers), strict=True)
        # A group may end inside a character only if the pattern asks for bytes (`\\C`).
        return {name: part.decode("utf-8", "replace") for name, part in found if part is not None}

    def spans(self, text: str, group: str) -> Iterator[tuple[int, int]]:
        """The places in the text where it matches; of that named group, if the pattern has it."""
        data = text.encode("utf-8", "replace")
        number = self._compiled.groupindex.get(group.encode(), 0)
        for match in self._compiled.finditer(data):
            start, end = match.span(number)
            if 0 <= start < end:
                if len(data) != len(text):  # counted in characters, not in bytes
                    start, end = (len(data[:at].decode("utf-8", "ignore")) for at in (start, end))
                yield start, end

    def is_in_text(self, text: str) -> bool:
        """Whether it matches anywhere in the text."""
        return self.is_in(text.encode("utf-8", "replace"))

    def is_in(self, text: bytes) -> bool:
        """Whether it matches anywhere in the text."""
        return self._compiled.search(text) is not None


def _compilable(written: str) -> str:
    LinearPattern(written)
    return written


Pattern = Annotated[str, Field(min_length=1), AfterValidator(_compilable)]
"""An option: a pattern in RE2's syntax."""
