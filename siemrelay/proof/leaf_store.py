"""The leaves of one stream as an export gives them: by number, in any order, in 34 bytes each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from siemrelay.proof.merkle import HASH_BYTES

# Leaves in a block.
_BLOCK: Final = 64
_BLOCK_BYTES: Final = _BLOCK * HASH_BYTES
_NONE: Final = bytes(HASH_BYTES)
_EMPTY: Final = bytes(_BLOCK_BYTES)

# A block of no more leaves than these is a row of entries, its place and then the leaf, so that
# numbers that lie far apart cost some 220 bytes each and not 2 KiB.
_ENTRY: Final = 1 + HASH_BYTES
_MOST_ENTRIES: Final = 8

# Memory of a block, with its place in a table.
_DENSE_BYTES: Final = _BLOCK_BYTES + 200
_SPARSE_BYTES: Final = 500


class LeafStore:
    """Number → leaf."""

    def __init__(self) -> None:
        self._blocks: dict[int, bytearray | bytes] = {}
        self._dense = 0
        self.count = 0
        self.end = 0
        """The number after the highest."""

    @property
    def held_bytes(self) -> int:
        """Memory that it takes, about: each entry at its largest."""
        sparse = len(self._blocks) - self._dense
        return self._dense * _DENSE_BYTES + sparse * _SPARSE_BYTES

    def add(self, number: int, leaf: bytes) -> bytes | None:
        """Store a leaf, unless there is one of that number: then return that."""
        known = self.get(number)
        if known is not None:
            return known
        block, place = divmod(number, _BLOCK)
        leaves = self._blocks.get(block, b"")
        if isinstance(leaves, bytes):
            leaves += bytes((place,)) + leaf
            self._blocks[block] = leaves
            if len(leaves) > _MOST_ENTRIES * _ENTRY:
                self._make_dense(block)
        else:
            leaves[place * HASH_BYTES : (place + 1) * HASH_BYTES] = leaf
        self.count += 1
        self.end = max(self.end, number + 1)
        return None

    def add_run(self, first: int, leaves: bytes) -> bool:
        """Store the leaves of consecutive numbers, one after the other in `leaves`.

        False, and none is stored, if one of these numbers has a leaf already.
        """
        last = first + len(leaves) // HASH_BYTES - 1
        parts = list[tuple[int, int, bytes]]()
        for block in range(first // _BLOCK, last // _BLOCK + 1):
            start = max(first - block * _BLOCK, 0) * HASH_BYTES
            at = (block * _BLOCK - first) * HASH_BYTES + start
            part = leaves[at : at + _BLOCK_BYTES - start]
            held = self._blocks.get(block)
            if held is not None:
                held = self._make_dense(block)
                if held[start : start + len(part)] != _EMPTY[: len(part)]:
                    return False
            parts.append((block, start, part))
        for block, start, part in parts:
            dense = self._make_dense(block)
            dense[start : start + len(part)] = part
        self.count += last - first + 1
        self.end = max(self.end, last + 1)
        return True

    def _make_dense(self, block: int) -> bytearray:
        leaves = self._blocks.get(block, b"")
        if isinstance(leaves, bytes):
            leaves = self._blocks[block] = _dense(leaves)
            self._dense += 1
        return leaves

    def get(self, number: int) -> bytes | None:
        """The leaf of that number."""
        block, place = divmod(number, _BLOCK)
        leaves = self._blocks.get(block)
        if leaves is None:
            return None
        if isinstance(leaves, bytes):
            for at in range(0, len(leaves), _ENTRY):
                if leaves[at] == place:
                    return leaves[at + 1 : at + _ENTRY]
            return None
        leaf = bytes(leaves[place * HASH_BYTES : (place + 1) * HASH_BYTES])
        return None if leaf == _NONE else leaf

    def between(self, start: int, end: int) -> list[bytes | None]:
        """The leaves of all numbers from `start` to before `end`."""
        found = list[bytes | None]()
        for block in range(start // _BLOCK, -(-end // _BLOCK)):
            leaves = self._blocks.get(block, b"")
            dense = bytes(_dense(leaves) if isinstance(leaves, bytes) else leaves)
            first, last = max(start - block * _BLOCK, 0), min(end - block * _BLOCK, _BLOCK)
            every = [
                dense[at : at + HASH_BYTES]
                for at in range(first * HASH_BYTES, last * HASH_BYTES, HASH_BYTES)
            ]
            found += every if _NONE not in every else [x if x != _NONE else None for x in every]
        return found

    def runs(self, start: int, end: int | None = None) -> Iterator[tuple[int, int]]:
        """First and last of each run of consecutive numbers that have a leaf, rising."""
        end = self.end if end is None else end
        first = last = -2
        within = range(start // _BLOCK, -(-end // _BLOCK))
        blocks: Iterable[int] = within
        if len(within) > len(self._blocks):
            blocks = sorted(block for block in self._blocks if block in within)
        for block in blocks:
            for number in self._numbers(block):
                if start <= number < end:
                    if number != last + 1:
                        if first >= 0:
                            yield first, last
                        first = number
                    last = number
        if first >= 0:
            yield first, last

    def _numbers(self, block: int) -> list[int]:
        """The numbers of a block that have a leaf, rising."""
        leaves, first = self._blocks.get(block, b""), block * _BLOCK
        if isinstance(leaves, bytes):
            return sorted(first + place for place in leaves[::_ENTRY])
        return [
            first + i
            for i in range(_BLOCK)
            if leaves[i * HASH_BYTES : (i + 1) * HASH_BYTES] != _NONE
        ]


def _dense(entries: bytes) -> bytearray:
    leaves = bytearray(_BLOCK_BYTES)
    for at in range(0, len(entries), _ENTRY):
        place = entries[at] * HASH_BYTES
        leaves[place : place + HASH_BYTES] = entries[at + 1 : at + _ENTRY]
    return leaves
