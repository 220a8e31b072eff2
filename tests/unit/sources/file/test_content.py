"""The bytes of plain and compressed files, read anywhere and only as far as memory has them."""

from __future__ import annotations

import errno
import gzip
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.sources.file.content import CompressedContent, PlainContent
from siemrelay.sources.file.disk import OpenFile
from siemrelay.sources.file.fingerprint import (
    Progress,
)
from siemrelay.sources.file.reader import FollowedFile
from siemrelay.wire.compression import COMPRESSIONS
from siemrelay.wire.framing.lines import LineFraming


def _plain(path: Path, data: bytes) -> PlainContent:
    path.write_bytes(data)
    return PlainContent(OpenFile(os.open(path, os.O_RDONLY)))


@given(st.lists(st.tuples(st.integers(0, 300_000), st.integers(0, 70_000)), max_size=8))
def test_gzip_content_can_be_read_anywhere(
    tmp_path_factory: pytest.TempPathFactory, reads: list[tuple[int, int]]
) -> None:
    whole = bytes(range(251)) * 1000
    path = tmp_path_factory.mktemp("gzip") / "file.gz"
    path.write_bytes(gzip.compress(whole[:100_000]) + b"\0" * 9 + gzip.compress(whole[100_000:]))
    content = CompressedContent(OpenFile(os.open(path, os.O_RDONLY)), COMPRESSIONS[0])
    for offset, length in reads:
        content.keep_from(offset)
        assert content.pread(length, offset) == whole[offset : offset + length]
    assert content.pread(1 << 20, 0) == whole
    assert content.complete
    assert content.damage is None
    content.close()


def _unsupported(*_: object) -> int:
    raise OSError(errno.EOPNOTSUPP, "not here")


def _not_in_memory(*_: object) -> int:
    raise BlockingIOError(errno.EAGAIN, "not now")


def _half_in_memory(descriptor: int, buffers: list[bytearray], offset: int, flags: int) -> int:
    data = os.pread(descriptor, len(buffers[0]) // 2, offset)
    buffers[0][: len(data)] = data
    return len(data)


@pytest.mark.parametrize("preadv", [_unsupported, _not_in_memory, _half_in_memory])
def test_what_is_not_in_memory_is_left_to_a_read_that_may_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preadv: Any
) -> None:
    lines = b"".join(b"line %d\n" % n for n in range(9000))
    content = _plain(tmp_path / "audit.log", lines)
    progress = Progress("audit.log", content.file.status().file_id, 1)
    followed = FollowedFile(str(tmp_path / "audit.log"), progress, framing=LineFraming(1 << 20))
    followed.content = content
    followed.look()
    first = followed.read_in_memory(finish=False)
    assert first is not None
    assert first.payload == lines
    with (tmp_path / "audit.log").open("ab") as file:
        file.write(lines)
    followed.look()
    with monkeypatch.context() as patched:
        patched.setattr(os, "preadv", preadv)
        with pytest.raises(BlockingIOError):
            followed.read_in_memory(finish=False)
    assert progress.offset == len(lines)
    second = followed.read(finish=False)
    assert second is not None
    assert second.payload == lines
    followed.close()
