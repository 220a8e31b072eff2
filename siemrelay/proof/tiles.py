"""Leaves as C2SP tiles (tlog-tiles): files of up to 256 hashes, by level and index.

`tile/0/N` has the leaves from 256 N on; `tile/1/N` the roots of 256 tiles of level 0, and so on. A
tile with W < 256 hashes is `tile/L/N.p/W`. N is written in groups of three digits, `x` before all
but the last: 1234067 is `x001/x234/067`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from siemrelay.proof.merkle import HASH_BYTES, Tree

TILE_HASHES: Final = 256

TIMESTAMPS_FOLDER: Final = "timestamps"
"""Beside a stream's tiles: of each seal that has a time stamp the note, and `NUMBER.tsr`."""

_LEAF_TILE: Final = re.compile(r"tile/0/((?:x\d{3}/)*\d{3})(?:\.p/(\d{1,3}))?$")


def tile_path(level: int, index: int, width: int = TILE_HASHES) -> str:
    """The path of a tile with so many hashes."""
    groups = [f"{index % 1000:03d}"]
    while index >= 1000:
        index //= 1000
        groups.insert(0, f"x{index % 1000:03d}")
    partial = f".p/{width}" if width < TILE_HASHES else ""
    return f"tile/{level}/{'/'.join(groups)}{partial}"


def leaf_tile(path: str) -> tuple[int, int] | None:
    """The number of the first leaf of a tile of level 0, and how many it has; None for any other
    path."""
    found = _LEAF_TILE.search(path)
    if found is None:
        return None
    first = int(found[1].replace("x", "").replace("/", "")) * TILE_HASHES
    return first, int(found[2]) if found[2] else TILE_HASHES


def tiles_of(leaves: Sequence[bytes]) -> Iterator[tuple[str, bytes]]:
    """All tiles of a tree with these leaves: paths and contents."""
    level, hashes = 0, list(leaves)
    while hashes:
        above = []
        for index in range(0, len(hashes), TILE_HASHES):
            tile = hashes[index : index + TILE_HASHES]
            yield tile_path(level, index // TILE_HASHES, len(tile)), b"".join(tile)
            if len(tile) == TILE_HASHES:
                above.append(Tree().extended(tile).root)
        level, hashes = level + 1, above


def split(tile: bytes) -> list[bytes]:
    """The hashes of a tile."""
    return [tile[i : i + HASH_BYTES] for i in range(0, len(tile), HASH_BYTES)]
