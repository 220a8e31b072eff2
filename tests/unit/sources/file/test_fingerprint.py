"""What tells files apart, and for how long a place in a file is remembered."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.sources.file.checkpoints import KEEP_GONE_S, CheckpointStore
from siemrelay.sources.file.content import PlainContent
from siemrelay.sources.file.disk import OpenFile
from siemrelay.sources.file.fingerprint import (
    ContentChanged,
    Progress,
    begins_as,
    continues_at,
)


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
    assert moved.checkpoint() == msgspec.structs.replace(place, marks=moved.checkpoint().marks)
    # Truncated after it was compared, and written anew.
    resumed = Progress.resume("key", place, "audit.log", (1, 2), whole[:1024])
    for target, data in [(moved, whole[:-1]), (resumed, whole[:-1]), (resumed, changed + more)]:
        content = _plain(directory / "file", data)
        with pytest.raises(ContentChanged):
            target.move_to(content, len(whole))
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
