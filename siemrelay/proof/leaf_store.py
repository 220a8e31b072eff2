"""The leaves of one stream as an export gives them: by number, in any order, in 34 bytes each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from siemrelay.proof.merkle import HASH_BYTES

# Leaves in a block: a block that holds just one costs 2 KiB.
_BLOCK: Final = 64
_NONE: Final = bytes(HASH_BYTES)


class LeafStore:
    """Number → leaf."""

    def __init__(self) -> None:
        self._blocks: dict[int, bytearray] = {}
        self.count = 0
        self.end = 0
        """The number after the highest."""

    def add(self, number: int, leaf: bytes) -> bytes | None:
        """Store a leaf, unless there is one of that number: then return that."""
        block, at = number // _BLOCK, number % _BLOCK * HASH_BYTES
        leaves = self._blocks.get(block)
        if leaves is None:
            leaves = self._blocks[block] = bytearray(_BLOCK * HASH_BYTES)
        known = leaves[at : at + HASH_BYTES]
        if known != _NONE:
            return bytes(known)
        leaves[at : at + HASH_BYTES] = leaf
        self.count += 1
        self.end = max(self.end, number + 1)
        return None

    def get(self, number: int) -> bytes | None:
        """The leaf of that number."""
        leaves = self._blocks.get(number // _BLOCK)
        at = number % _BLOCK * HASH_BYTES
        leaf = _NONE if leaves is None else bytes(leaves[at : at + HASH_BYTES])
        return None if leaf == _NONE else leaf

    def numbers(self, start: int) -> Iterator[int]:
        """The numbers from `start` on that have a leaf, rising."""
        for block in sorted(self._blocks):
            if (block + 1) * _BLOCK > start:
                for number in range(max(block * _BLOCK, start), (block + 1) * _BLOCK):
                    if self.get(number) is not None:
                        yield number
