"""Files that outlive a power cut: a file's name is fsynced like its content.

Everything here blocks: call it in threads.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable, where its file system can. Raises OSError."""
    try:
        sync(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno != errno.EINVAL:  # fsync(2): this file system keeps no names to write
            raise


def sync(path: Path, flags: int) -> None:
    """Open a file with these flags of open(2) and write it to disk; made now, it is 0600.

    Raises OSError.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Put a file with this content in the place of the one at `path`, if there is one.

    Whole or not at all, and on disk at return. Only its owner may read it (0600); one that root
    makes belongs to the owner of its directory, so that the relay's user may use what a command of
    root's has written. Two callers of one path must not run at the same time.

    Raises OSError: the old file is still there, unless it is the fsync of the directory that
    failed; then a power cut may bring it back.
    """
    new = path.with_name(f"{path.name}.new")
    with suppress(FileNotFoundError):
        new.unlink()
    try:
        with open(new, "xb", opener=_for_the_owner) as file:
            give_to_owner(file.fileno(), path.parent)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise
    sync_directory(path.parent)


def give_to_owner(descriptor: int, directory: Path) -> None:
    """Give a file that root has just made to the owner of its directory: the relay's user may use
    what a command of root's has written. Does nothing for other users. Raises OSError.
    """
    if os.geteuid() == 0:
        owner = directory.stat()
        os.chown(descriptor, owner.st_uid, owner.st_gid)


def _for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
