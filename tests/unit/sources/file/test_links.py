"""Symbolic links under the globs: followed for their owners, not for strangers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

import pytest

from siemrelay.sources.file.disk import Disk
from siemrelay.sources.file.links import FollowLinks, LinkRefused
from tests.support.rotation.file_source_rig import CollectingIntake, drained

_NOBODY = 65534
_as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def linked(directory: Path, link_owner: int, owner: int, *, of_directory: bool) -> Path:
    """A path that a link leads on: the last name, or the directory before it."""
    (directory / "real").mkdir()
    target = directory / "real" / "audit.log"
    target.write_bytes(b"secret\n")
    os.chown(target, owner, -1)
    os.chown(target.parent, owner, -1)
    link = directory / ("linked" if of_directory else "linked.log")
    link.symlink_to(target.parent if of_directory else target)
    os.lchown(link, link_owner, -1)
    return link / "audit.log" if of_directory else link


def read(path: Path, follow: FollowLinks = "trusted") -> bytes:
    file = Disk(follow).open(str(path))
    try:
        return file.pread(6, 0)
    finally:
        file.close()


@_as_root
@pytest.mark.parametrize("of_directory", [False, True])
@pytest.mark.parametrize(("link_owner", "owner"), [(0, 0), (0, 1000), (1000, 1000)])
def test_a_link_of_root_or_of_the_targets_owner_is_followed(
    tmp_path: Path, link_owner: int, owner: int, of_directory: bool
) -> None:
    assert read(linked(tmp_path, link_owner, owner, of_directory=of_directory)) == b"secret"


@_as_root
@pytest.mark.parametrize("of_directory", [False, True])
def test_a_link_of_another_user_does_not_lead_the_relay_to_a_file_of_root(
    tmp_path: Path, of_directory: bool
) -> None:
    path = linked(tmp_path, _NOBODY, 0, of_directory=of_directory)
    with pytest.raises(LinkRefused, match="is a symbolic link of user 65534"):
        read(path)
    assert read(path, "always") == b"secret"


@_as_root
def test_a_strangers_link_is_found_behind_links_of_root(tmp_path: Path) -> None:
    path = linked(tmp_path, _NOBODY, 0, of_directory=True)
    outer = tmp_path / "outer.log"
    outer.symlink_to(Path("real/../linked/audit.log"))
    with pytest.raises(LinkRefused, match="linked is a symbolic link of user"):
        read(outer)
    os.lchown(path.parent, 0, -1)
    assert read(outer) == b"secret"


@pytest.mark.parametrize("of_directory", [False, True])
def test_no_link_is_followed_where_none_is_wanted(tmp_path: Path, of_directory: bool) -> None:
    path = linked(tmp_path, os.geteuid(), os.geteuid(), of_directory=of_directory)
    with pytest.raises(LinkRefused, match="`follow_links` is `never`"):
        read(path, "never")
    assert read(tmp_path / "real" / "audit.log", "never") == b"secret"


@pytest.mark.parametrize("follow", get_args(FollowLinks))
def test_links_in_a_circle_and_what_is_no_file_end_in_an_error(
    tmp_path: Path, follow: FollowLinks
) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic link"):
        read(tmp_path / "a", follow)
    os.mkfifo(tmp_path / "pipe")
    for none in (tmp_path / "pipe", tmp_path, tmp_path / "no.log"):
        with pytest.raises(FileNotFoundError):
            read(none, follow)


def test_descriptors_do_not_leak_whatever_a_path_leads_to(tmp_path: Path) -> None:
    path = linked(tmp_path, os.geteuid(), os.geteuid(), of_directory=True)
    (tmp_path / "circle").symlink_to("circle")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for follow in get_args(FollowLinks):
        for each in (path, tmp_path / "circle", tmp_path / "linked", tmp_path / "no"):
            try:
                read(each, follow)
            except OSError:
                continue
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


@_as_root
async def test_a_directory_that_a_stranger_links_is_reported_and_not_read(tmp_path: Path) -> None:
    linked(tmp_path, _NOBODY, 0, of_directory=True)
    intake = CollectingIntake()
    assert await drained(f"{tmp_path}/linked/*.log", intake) == []
    (count, why) = intake.unreadables[-1]
    assert count == 1
    assert "linked is a symbolic link of user 65534" in why
    assert "follow_links" in why
    assert await drained(f"{tmp_path}/linked/*.log", intake, follow_links="always") == [b"secret"]
