"""A bounded cache of values that are computed from names which peers choose."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

MOST_KEYS: Final = 4096
MOST_CHARACTERS: Final = 512
"""With these two, keys take at most 8 MiB; real feeds have hundreds of names."""

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class BoundedMemo(dict[Key, Value], Generic[Key, Value]):
    """`memo[key]` is a cached value, computed when it is first asked for.

    Bounds: it is emptied when it has `most` keys, and never keeps a key whose texts have more than
    `MOST_CHARACTERS` characters together. A hit is a plain dict look-up, without Python code.
    Several threads may read it; at worst a value is computed twice.
    """

    def __init__(self, compute: Callable[[Key], Value], most: int = MOST_KEYS) -> None:
        super().__init__()
        self._compute: Callable[[Key], Value] = compute
        self._most = most

    def __missing__(self, key: Key) -> Value:
        value = self._compute(key)
        if _characters(key) <= MOST_CHARACTERS:
            if len(self) >= self._most:
                self.clear()
            self[key] = value
        return value


def _characters(key: Hashable) -> int:
    if isinstance(key, tuple):
        return sum(map(_characters, key))
    return len(key) if isinstance(key, str) else 0
