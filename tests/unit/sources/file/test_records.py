"""Lines out of a file's bytes, and past its holes: NULs where nothing was ever written."""

from __future__ import annotations

import gzip
import os
import re
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.sources.file.disk import Disk
from siemrelay.sources.file.fingerprint import Progress
from siemrelay.sources.file.reader import FollowedFile
from siemrelay.wire.compression import COMPRESSIONS
from siemrelay.wire.framing.lines import LineFraming
from tests.support.rotation.file_source_rig import CollectingIntake, append, drained, running

HOLE = bytes(4096)
MIB = 1 << 20


def follow(path: Path, *, compressed: bool = False) -> FollowedFile:
    file = Disk().open(str(path))
    progress = Progress(str(path), file.status().file_id, 1, compressed=compressed)
    followed = FollowedFile(
        str(path), progress, framing=LineFraming(MIB),
        compression=COMPRESSIONS[0] if compressed else None,
    )  # fmt: skip
    followed.adopt(file)
    followed.look()
    return followed


def read_all(file: FollowedFile, *, finish: bool = False) -> tuple[list[bytes], int]:
    """Every record that is to be had now, and how many NULs were skipped."""
    records: list[bytes] = []
    file.look()
    while (chunk := file.read(finish=finish)) is not None:
        if not chunk.consumed and not chunk.count and file.progress.finished_size is not None:
            break
        records += chunk.payload.split(b"\n")[:-1]
    return records, file.take_skipped_nuls()


@pytest.mark.parametrize(
    ("data", "records", "skipped"),
    [
        (HOLE + b"a\nb\n", [b"a", b"b"], 4096),
        (b"a\n" + HOLE + b"b\n", [b"a", b"b"], 4096),
        (b"a\ncut off" + HOLE + b"b\n", [b"a", b"cut off", b"b"], 4096),
        (b"a\n\0\0b \0 field\nc\0\n", [b"a", b"\0\0b \0 field", b"c\0"], 0),
        (b"a\n" + HOLE, [b"a"], 0),
        (b"a\ncut off" + HOLE, [b"a"], 0),
        (HOLE, [], 0),
        (b"x" * MIB + HOLE + b"b\n", [b"x" * MIB, b"b"], 4096),
        (bytes(3 * MIB) + b"b\n", [b"b"], 3 * MIB),
    ],
)
def test_a_hole_ends_a_line_and_is_skipped_once_something_follows(
    tmp_path: Path, data: bytes, records: list[bytes], skipped: int
) -> None:
    (path := tmp_path / "audit.log").write_bytes(data)
    file = follow(path)
    assert read_all(file) == (records, skipped)
    whole_text = data.rstrip(b"\0")
    assert file.unread == (0 if whole_text.endswith(b"\n") or not whole_text else len(b"cut off"))
    file.close()
    if data.endswith(b"\n"):
        (packed := tmp_path / "audit.log.1.gz").write_bytes(gzip.compress(data))
        file = follow(packed, compressed=True)
        assert read_all(file) == (records, skipped)
        file.close()


def test_the_end_of_a_file_that_is_allocated_in_advance_is_read_when_it_is_written(
    tmp_path: Path,
) -> None:
    (path := tmp_path / "audit.log").write_bytes(b"a\n" + bytes(2 * MIB))
    file = follow(path)
    assert read_all(file) == ([b"a"], 0)
    with path.open("r+b") as writer:
        writer.seek(2)
        writer.write(b"b\nhalf")
        writer.flush()
        assert read_all(file) == ([b"b"], 0)
        writer.write(b" whole\n")
    assert read_all(file) == ([b"half whole"], 0)
    assert file.unread == 0
    assert read_all(file, finish=True) == ([], 2 * MIB - len(b"b\nhalf whole\n"))
    file.close()


pieces = st.one_of(
    st.binary(min_size=1, max_size=40).map(lambda data: data.replace(b"\0", b"-")),
    st.just(b"\n"),
    st.integers(1, 3).map(bytes),
    st.integers(1024, 700_000).map(bytes),
)


@given(st.lists(pieces, max_size=12))
def test_records_are_what_lies_between_line_feeds_and_holes(
    tmp_path_factory: pytest.TempPathFactory, found: list[bytes]
) -> None:
    data = b"".join([b"start", *found, b"end\n"])  # no compressed file begins so
    path = tmp_path_factory.mktemp("lines") / "audit.log"
    path.write_bytes(data)
    file = follow(path)
    records, _ = read_all(file)
    file.close()
    parts = [part for line in data.split(b"\n") for part in re.split(rb"\0{64,}", line)]
    assert records == [part for part in parts if part not in (b"", b"\r")]


def test_a_sparse_file_of_300_mebibytes_is_skipped_in_the_memory_of_a_few_reads(
    tmp_path: Path,
) -> None:
    path = tmp_path / "audit.log"
    with path.open("wb") as writer:
        writer.seek(300 * MIB)
        writer.write(b"after the hole\n")
        writer.seek(600 * MIB)
        writer.write(b"\n")
    assert path.stat().st_blocks * 512 < MIB, "this file system has no holes"
    file = follow(path)
    tracemalloc.start()
    try:
        assert read_all(file) == ([b"after the hole"], 600 * MIB - len(b"after the hole\n"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        file.close()
    assert peak < 4 * MIB


async def test_a_writer_that_does_not_append_is_followed_through_copytruncate(
    tmp_path: Path,
) -> None:
    path, intake = tmp_path / "audit.log", CollectingIntake()
    append(path, b"".join(b"before %d\n" % n for n in range(3000)))
    end = path.stat().st_size
    async with running(path, intake, poll="50ms"):
        await intake.until_lines(3000)
        os.truncate(path, 0)
        with path.open("r+b") as writer:
            writer.seek(end)
            writer.write(b"after\n")
        await intake.until_lines(3001)
    assert intake.lines[-1] == b"after"
    assert intake.nuls == end
    assert await drained(path, intake) == intake.lines
    assert len(intake.lines) == 3001
