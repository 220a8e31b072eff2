"""Files that outlive a power cut. Which of them a cut leaves is played in tests/torture."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from siemrelay.durable_files import replace_file, sync_directory


@pytest.mark.parametrize("before", [None, b"old, and longer than what replaces it"])
def test_a_replaced_file_has_the_new_content_for_its_owner_alone(
    tmp_path: Path, before: bytes | None
) -> None:
    path = tmp_path / "seal.key"
    if before is not None:
        path.write_bytes(before)
        path.chmod(0o644)
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_no_obstacle_and_no_way_to_another_file(
    tmp_path: Path,
) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"untouched")
    (tmp_path / "paused.json.new").symlink_to(other)
    replace_file(tmp_path / "paused.json", b"{}")
    assert other.read_bytes() == b"untouched"
    assert not (tmp_path / "paused.json").is_symlink()


def test_a_file_that_cannot_be_written_to_disk_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "seal.key"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_is_on_disk_only_after_the_content_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "seal.key", list[tuple[str, bool]]()
    real = os.fsync

    def recorded(descriptor: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        seen.append((kind, path.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    replace_file(path, b"new")
    assert seen == [("file", False), ("directory", True)]


def test_a_directory_whose_file_system_keeps_no_names_on_disk_is_no_error() -> None:
    sync_directory(Path("/proc"))


def test_a_directory_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sync_directory(tmp_path / "gone")
