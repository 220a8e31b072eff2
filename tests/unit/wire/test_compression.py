"""Compressed files are expanded as they come, damaged ones up to the damage."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable, Iterator
from functools import partial
from random import Random

import pytest
import zstandard

from siemrelay.wire.compression import COMPRESSIONS, Compression, Damaged, compression_of, expanded

WHOLE = b"".join(b"%d %s\n" % (n, Random(n).randbytes(9).hex().encode()) for n in range(30_000))
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "xz": lzma.compress,
    "bzip2": partial(bz2.compress, compresslevel=1),  # blocks of 100 kB
}
BY_NAME = {row.name: row for row in COMPRESSIONS}


def pieces_of(data: bytes, size: int) -> Iterator[bytes]:
    return (data[i : i + size] for i in range(0, len(data), size))


def read(data: bytes, compression: Compression, size: int) -> tuple[bytes, str]:
    """What came out, and the damage that was met."""
    found = bytearray()
    try:
        for piece in expanded(pieces_of(data, size), compression):
            found += piece
    except Damaged as damage:
        return bytes(found), str(damage)
    return bytes(found), ""


@pytest.mark.parametrize("size", [997, 1 << 16, 1 << 24])
@pytest.mark.parametrize("name", COMPRESS)
def test_every_member_is_expanded_whatever_the_pieces(name: str, size: int) -> None:
    compress = COMPRESS[name]
    packed = compress(WHOLE[:1000]) + compress(b"") + bytes(9) + compress(WHOLE[1000:])
    compression = compression_of(packed, "")
    assert compression is BY_NAME[name]
    assert read(packed, compression, size) == (WHOLE, "")


@pytest.mark.parametrize("name", COMPRESS)
def test_of_a_file_that_was_cut_off_comes_what_is_there(name: str) -> None:
    packed = COMPRESS[name](WHOLE)
    found, damage = read(packed[:-100], BY_NAME[name], 4096)
    assert WHOLE.startswith(found)
    assert len(found) > len(WHOLE) // 10
    assert damage == "ends in the middle of its compressed data"


@pytest.mark.parametrize("name", COMPRESS)
def test_garbage_behind_a_member_is_damage_behind_all_of_it(name: str) -> None:
    assert read(COMPRESS[name](WHOLE) + b"x" * 100, BY_NAME[name], 4096) == (
        WHOLE, f"not {name} data",
    )  # fmt: skip
