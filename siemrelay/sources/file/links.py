"""Opens a file without following a symbolic link that another user has put in the way.

The relay may read what others may not, and log directories belong to others: a link in one of them,
in the place of the log or of a directory on the way to it, could lead to any file of the machine.
"""

# ruff: noqa: PTH115, PTH118
# Paths are text here, as in `disk`.
from __future__ import annotations

import errno
import os
import stat
from typing import Final, Literal, NamedTuple

FollowLinks = Literal["trusted", "always", "never"]
"""Which symbolic links are followed: those of root, of the relay's user, and of the owner of what
they lead to, as Linux has it in sticky directories (proc_sys_fs(5), protected_symlinks); all; none.
"""

# As the kernel: more is a circle.
_MOST_LINKS: Final = 40
# O_NONBLOCK: a FIFO that took the name since it was looked at would hold us for ever.
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_STEP: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class LinkRefused(PermissionError):
    """A symbolic link on the way to a file is not followed, by `follow_links`."""

    def __init__(self, path: str, link: str, why: str) -> None:
        super().__init__(errno.EACCES, f"{link} is a symbolic link{why}", path)


class _End(NamedTuple):
    """Stands behind the names that a link was replaced by: what is open there is its target."""

    link: str
    owner: int


def open_file(path: str, follow: FollowLinks) -> int:
    """A descriptor for reading the regular file of that absolute path.

    Raises OSError; FileNotFoundError if it is no such file, LinkRefused.
    """
    descriptor = os.open(path, _READ)
    try:
        # The usual case at the cost of one call: the kernel says that it is where its name says.
        if follow != "always" and _path_of(descriptor) != path:
            os.close(descriptor)
            descriptor = -1
            descriptor = _walk(path, follow)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileNotFoundError(errno.ENOENT, "not a regular file", path)
    except BaseException:
        if descriptor >= 0:
            os.close(descriptor)
        raise
    return descriptor


def _path_of(descriptor: int) -> str | None:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return None


def _walk(path: str, follow: FollowLinks) -> int:
    """Open it step by step: each name is looked up in the directory that is open, and nothing that
    is renamed meanwhile can put a link where none was found.
    """
    todo: list[str | _End] = list(reversed(path.split("/")))
    here, links = os.open("/", _STEP | os.O_DIRECTORY), 0
    before = "/"
    try:
        while todo:
            name = todo.pop()
            if isinstance(name, _End):
                _judge(path, name, os.fstat(here).st_uid)
                continue
            if name in ("", "."):
                continue
            there = os.open(name, _STEP, dir_fd=here)
            status = os.fstat(there)
            if stat.S_ISLNK(status.st_mode):
                link = os.path.join(before, name)
                try:
                    target = os.readlink("", dir_fd=there)
                finally:
                    os.close(there)
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                if follow == "never":
                    raise LinkRefused(path, link, ", and `follow_links` is `never`")
                todo.append(_End(link, status.st_uid))
                todo.extend(reversed(target.split("/")))
                if target.startswith("/"):
                    os.close(here)
                    here, before = os.open("/", _STEP | os.O_DIRECTORY), "/"
                continue
            os.close(here)
            here, before = there, os.path.join(before, name)
        if not stat.S_ISREG(os.fstat(here).st_mode):
            raise FileNotFoundError(errno.ENOENT, "not a regular file", path)
        # What is open is a name for it only; through /proc it is opened itself, whatever has its
        # name now.
        return os.open(f"/proc/self/fd/{here}", _READ)
    finally:
        os.close(here)


def _judge(path: str, link: _End, target_owner: int) -> None:
    if link.owner not in (0, os.geteuid(), target_owner):
        why = f" of user {link.owner}, who owns neither what it leads to nor the relay"
        raise LinkRefused(path, link.link, why)
