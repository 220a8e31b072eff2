"""The Merkle tree of RFC 6962, section 2.1, as it grows: hashes of leaves in, root out.

A tree of n leaves is held as its peaks: the roots of the perfect trees that it consists of, one for
each 1 in the binary form of n. So it needs at most 53 hashes, whatever its size, and grows by runs
of leaves without the leaves before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import msgspec

HASH_BYTES = 32
_EMPTY = sha256(b"").digest()


# A copy costs less than a new one.
_LEAF = sha256(b"\0")


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 ‖ data)."""
    digest = _LEAF.copy()
    digest.update(data)
    return digest.digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right)."""
    return sha256(b"\1" + left + right).digest()


class Tree(msgspec.Struct, frozen=True, array_like=True):
    """A tree of `size` leaves by its peaks, the largest (leftmost) first."""

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def is_whole(self) -> bool:
        """Whether there are as many peaks as the size asks for, each one a hash."""
        return self.size.bit_count() == len(self.peaks) and all(
            len(peak) == HASH_BYTES for peak in self.peaks
        )

    @property
    def root(self) -> bytes:
        """The root hash; of an empty tree the hash of nothing."""
        if not self.peaks:
            return _EMPTY
        root = self.peaks[-1]
        for peak in self.peaks[-2::-1]:
            root = node_hash(peak, root)
        return root

    def extended(self, leaves: Sequence[bytes]) -> Tree:
        """The tree with the hashes of more leaves behind its own."""
        levels = [level for level in range(self.size.bit_length()) if self.size >> level & 1]
        old = dict(zip(reversed(levels), self.peaks, strict=True))
        peaks, nodes, level = dict[int, bytes](), list(leaves), 0
        while nodes:
            if (left := old.pop(level, None)) is not None:
                nodes.insert(0, left)
            if len(nodes) % 2:
                peaks[level] = nodes.pop()
            each = iter(nodes)
            nodes = [sha256(b"\1" + left + right).digest() for left, right in zip(each, each)]  # noqa: B905  (an even number, of one iterator)
            level += 1
        peaks |= old
        return Tree(
            self.size + len(leaves), tuple(peaks[level] for level in sorted(peaks, reverse=True))
        )
