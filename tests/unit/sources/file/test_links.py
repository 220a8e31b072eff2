"""Symbolic links under the globs: followed for their owners, not for strangers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from siemrelay.sources.file.disk import Disk

_NOBODY = 65534
_as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@_as_root
@pytest.mark.parametrize(("link_owner", "file_owner"), [(0, 0), (0, 1000), (1000, 1000)])
def test_a_link_of_root_or_of_the_files_owner_is_followed(
    tmp_path: Path, link_owner: int, file_owner: int
) -> None:
    link = linked(tmp_path, link_owner, file_owner)
    file = Disk().open(str(link))
    assert file.pread(6, 0) == b"secret"
    file.close()


@_as_root
def test_a_link_of_another_user_does_not_lead_the_relay_to_a_file_of_root(tmp_path: Path) -> None:
    link = linked(tmp_path, _NOBODY, 0)
    with pytest.raises(PermissionError, match="a symbolic link of a user"):
        Disk().open(str(link))


def linked(directory: Path, link_owner: int, file_owner: int) -> Path:
    target, link = directory / "target", directory / "audit.log"
    target.write_bytes(b"secret\n")
    os.chown(target, file_owner, -1)
    link.symlink_to(target)
    os.lchown(link, link_owner, -1)
    return link
