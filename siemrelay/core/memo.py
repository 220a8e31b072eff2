"""What is made once of each name, and remembered within bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

# Names come from outside; so many of them, so long, are remembered at a time.
_KEPT: Final = 4096
_KEPT_CHARACTERS: Final = 512

Name = TypeVar("Name", str, tuple[str, str])
Made = TypeVar("Made")


class Remembered(dict[Name, Made]):
    """Read it with `[name]`: what it does not have it makes, and keeps if the name is short.

    May be read from several threads; the worst that happens is that one thing is made twice.
    """

    def __init__(self, make: Callable[[Name], Made]) -> None:
        super().__init__()
        self._make: Callable[[Name], Made] = make

    def __missing__(self, name: Name) -> Made:
        made = self._make(name)
        if sum(map(len, name)) <= _KEPT_CHARACTERS:  # a text's characters, or a pair's
            if len(self) >= _KEPT:
                self.clear()
            self[name] = made
        return made
