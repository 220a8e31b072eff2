"""What tells files apart, and how their bytes become records: values in, values out."""

from __future__ import annotations

import errno
import gzip
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.sources.chunks import cut
from siemrelay.sources.file.checkpoints import KEEP_GONE_S, CheckpointStore
from siemrelay.sources.file.compression import COMPRESSIONS
from siemrelay.sources.file.content import CompressedContent, PlainContent
from siemrelay.sources.file.disk import Disk, OpenFile
from siemrelay.sources.file.finder import Finder, Globs
from siemrelay.sources.file.fingerprint import (
    ContentChanged,
    Progress,
    begins_as,
    continues_at,
)
from siemrelay.sources.file.reader import FollowedFile
from siemrelay.sources.file.rotated_names import age, family, is_rotated_name


@pytest.mark.parametrize(
    ("name", "log"),
    [
        ("audit.log", "audit.log"),
        ("audit.log.1", "audit.log"),
        ("audit.log.12.gz", "audit.log"),
        ("audit.log-20240131", "audit.log"),
        ("audit.log-20240131.gz", "audit.log"),
        ("audit.log-1706659200", "audit.log"),
        ("audit-2024-01-31.json", "audit.json"),
        ("audit-2024-01-31-2.log.gz", "audit.log"),
        ("audit.log.2024-01-31T10-00-00", "audit.log"),
        ("0.log.20240131-101112", "0.log"),
        ("0.log.20240131-101112.tmp", "0.log"),
        ("0.log.tmp", "0.log.tmp"),
        ("audit.2024-01-31.1.log1706659200123.tmp", "audit.log"),
        ("audit.2024-01-31.1.log.gz", "audit.log"),
        ("host123456.log", "host123456.log"),
        ("audit.log123456", "audit.log123456"),
        ("audit.log-2024013123", "audit.log"),
        ("audit-2024013123.log.gz", "audit.log"),
        ("audit-20240131-1706659200.log", "audit.log"),
        ("audit.log-20240131-1706659200.gz", "audit.log"),
        ("@4000000065b9a2b01d4c3a2f.s", "current"),
        ("@4000000065b9a2b01d4c3a2f", "current"),
        ("host-1.log", "host-1.log"),
        ("host-2.log", "host-2.log"),
        ("20240131.log", ".log"),
        ("2024-01-31", "2024-01-31"),
    ],
)
def test_generations_of_one_log_are_one_family(name: str, log: str) -> None:
    assert family(f"/var/log/{name}") == f"/var/log/{log}"
    assert is_rotated_name(f"/var/log/{name}") == (name != log)


@pytest.mark.parametrize(
    "oldest_first",
    [
        ["audit.log.10.gz", "audit.log.9", "audit.log.1", "audit.log"],
        ["audit.log-20231231.gz", "audit.log-20240101", "audit.log"],
        ["audit-2024-01-09.log", "audit-2024-01-10.log"],
        ["audit-2024-01-09-2.log", "audit-2024-01-09-10.log", "audit-2024-01-10.log"],
        ["audit.log-20240131-1706659200", "audit.log-20240131-1706659201.gz", "audit.log"],
        ["@4000000065b9a2b01d4c3a2f.s", "@4000000065b9a2b11d4c3a2f.s", "current"],
    ],
)
def test_generations_are_sorted_by_age(oldest_first: list[str]) -> None:
    assert sorted(sorted(oldest_first), key=age) == oldest_first


@given(st.lists(st.sampled_from([b"", b"\r", b"a", b"bb\r", b"\0", b"c" * 50])), st.binary())
def test_cut_takes_every_line_but_the_blank_and_the_incomplete_ones(
    lines: list[bytes], rest: bytes
) -> None:
    rest = rest.replace(b"\n", b"")
    made = cut(b"".join(line + b"\n" for line in lines) + rest, 40)
    wanted = [line for line in lines if line not in (b"", b"\r")]
    if made is None:
        assert lines == []
        return
    assert made.consumed == b"".join(line + b"\n" for line in lines)
    assert made.payload == b"".join(line + b"\n" for line in wanted)
    assert made.count == len(wanted)
    assert list(made.oversize) == [len(line) for line in wanted if len(line) > 40]


def _plain(path: Path, data: bytes) -> PlainContent:
    path.write_bytes(data)
    return PlainContent(OpenFile(os.open(path, os.O_RDONLY)))


@given(st.lists(st.binary(min_size=1, max_size=900), min_size=1, max_size=6), st.binary())
def test_place_is_found_again_only_where_what_was_read_still_is(
    tmp_path_factory: pytest.TempPathFactory, reads: list[bytes], more: bytes
) -> None:
    directory = tmp_path_factory.mktemp("identity")
    progress = Progress("audit.log", (1, 2), 3)
    for data in reads:
        progress.advance(data)
    whole, place = b"".join(reads), progress.checkpoint()
    changed = whole[:-1] + bytes([whole[-1] ^ 1])
    for data, same in [(whole + more, True), (changed + more, False), (whole[:-1], False)]:
        content = _plain(directory / "file", data)
        begins = begins_as(content.pread(1024, 0), place)
        assert (begins and continues_at(content, place.offset, place.tail_sha256)) == same
        assert progress.still_in(content) == same
        content.close()
    moved = Progress("audit.log", (1, 2), 3)
    content = _plain(directory / "file", whole + more)
    moved.move_to(content, len(whole))
    content.close()
    assert moved.checkpoint() == msgspec.structs.replace(place, ends=moved.checkpoint().ends)
    # Truncated after it was compared, and written anew.
    resumed = Progress.resume("key", place, "audit.log", (1, 2), whole[:1024])
    for target, data in [(moved, whole[:-1]), (resumed, whole[:-1]), (resumed, changed + more)]:
        content = _plain(directory / "file", data)
        with pytest.raises(ContentChanged):
            target.move_to(content, len(whole))
        content.close()


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


def test_gone_place_is_kept_for_a_day_and_then_forgotten() -> None:
    store = CheckpointStore()
    progress = Progress("/var/log/audit.log.1", (1, 2), 3)
    progress.advance(b"line\n")
    store.put(progress.key, progress.checkpoint())
    store.take_changes()
    store.expire(1000.0)
    (noted,) = store.take_changes()
    assert noted.value is not None
    assert noted.value["gone"] == 1000.0
    store.expire(1000.0 + KEEP_GONE_S - 1)
    assert not store.take_changes()
    assert [key for key, _ in store.of_log("audit.log")] == [progress.key]
    store.expire(1000.0 + KEEP_GONE_S)
    (dropped,) = store.take_changes()
    assert (dropped.key, dropped.value) == (progress.key, None)
    assert store.of_inode(2) == store.of_log("audit.log") == []


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
    followed = FollowedFile(str(tmp_path / "audit.log"), progress, max_record_bytes=1 << 20)
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


@pytest.mark.parametrize(
    "pattern",
    ["*", "*.log", "**", "**/*.log", "*/*", "a/**", "a/**/b.log", ".h/*", ".*", "**/.*",
     "[a]/?.log", "**/b/**", "a", "a/b.log", "**/**", "*/**/*"],
)  # fmt: skip
def test_globs_match_by_their_text_just_what_they_find_on_the_disk(
    pattern: str, tmp_path: Path
) -> None:
    paths = [
        tmp_path / folder / name
        for folder in ("", "a", "b", "a/b", "a/b/c", ".h", "a/.h")
        for name in ("a.log", "b.log", ".c.log", "d")
    ]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    globs = Globs([f"{tmp_path}/{pattern}"])
    picture = Finder(globs, Disk()).find(changed=None)
    found = {file.path for file in picture.found.values()}
    assert {str(path) for path in paths if globs.matches(str(path))} == found
