"""Connections to the buffer's file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from siemrelay.buffer.sqlite.store import Store


def test_a_start_on_a_buffer_from_before_writes_nothing_and_waits_for_no_fsync(
    tmp_path: Path,
) -> None:
    path = tmp_path / "buffer.db"
    Store(path).close()
    before = path.read_bytes()
    again = Store(path)
    assert path.read_bytes() == before
    # It is there for `SqliteErrors.watch_log`, and empty.
    assert path.with_name("buffer.db-wal").read_bytes() == b""
    again.close()


def test_a_file_that_an_earlier_program_left_empty_becomes_a_buffer(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    path.touch()
    Store(path).close()
    assert path.read_bytes()[16:18] == (16384).to_bytes(2)  # the size of a page


def test_a_new_buffer_is_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "buffer.db", list[tuple[bool, int]]()
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        seen.append((path.exists(), name == "buffer.db.new"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    Store(path).close()
    assert seen == [(False, True), (True, False)]  # the file, then the directory with its log
