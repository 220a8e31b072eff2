"""Leaves as tiles, as C2SP's tlog-tiles has them."""

from __future__ import annotations

import pytest

from siemrelay.proof.merkle import Tree, leaf_hash
from siemrelay.proof.tiles import leaf_tile, split, tile_path, tiles_of


@pytest.mark.parametrize(("level", "index", "width", "path"), [
    (0, 0, 256, "tile/0/000"),
    (0, 1234067, 256, "tile/0/x001/x234/067"),
    (1, 7, 12, "tile/1/007.p/12"),
    (0, 255_999, 1, "tile/0/x255/999.p/1"),
])  # fmt: skip
def test_a_tile_has_the_path_of_the_specification(
    level: int, index: int, width: int, path: str
) -> None:
    assert tile_path(level, index, width) == path
    assert leaf_tile(path) == (None if level else (index * 256, width))


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 600, 66_000])
def test_the_tiles_of_level_0_are_the_leaves_and_each_above_the_roots_below(size: int) -> None:
    leaves = [leaf_hash(b"%d" % n) for n in range(size)]
    tiles = dict(tiles_of(leaves))
    read = {leaf_tile(path): split(tile) for path, tile in tiles.items()}
    assert all(place is None or place[1] == len(tile) for place, tile in read.items())
    found = [leaf for first in sorted(x for x in read if x is not None) for leaf in read[first]]
    assert found == leaves
    assert all(len(tile) % 32 == 0 for tile in tiles.values())
    if size >= 256:
        above = split(
            tiles["tile/1/000"] if size >= 65_536 else tiles[tile_path(1, 0, size // 256)]
        )
        assert above[0] == Tree().extended(leaves[:256]).root


@pytest.mark.parametrize("path", ["checkpoint", "tile/0/01", "tile/0/x1/000", "tile/entries/000"])
def test_what_is_no_tile_of_leaves_is_none(path: str) -> None:
    assert leaf_tile(path) is None
