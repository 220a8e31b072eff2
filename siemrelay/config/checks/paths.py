"""The paths that a configuration names: those that this process sees, and what it may do there."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from glob import has_magic, iglob
from itertools import islice
from pathlib import Path
from typing import Any, Final

from siemrelay.config.load import Loaded
from siemrelay.config.yaml_document import KeyPath
from siemrelay.net.listening_sockets import Listening
from siemrelay.sinks.file.sink import ArchiveOptions
from siemrelay.sources.file.options import FileOptions

# Of the files of one source; the others most likely have the same owner.
_FILES_LOOKED_AT: Final = 1000
_FILES_NAMED: Final = 3


def unreadable(loaded: Loaded, files: dict[str, list[str]]) -> Iterator[tuple[KeyPath, str]]:
    """Paths of the file sources that this process cannot read: where each is named, and why.

    `files` are those that there are, as `listed_files` of a user finds them that sees all.
    """
    for name, source in loaded.config.sources.items():
        if not isinstance(source, FileOptions):
            continue
        path: KeyPath = ("sources", name, "path")
        folders = {str(fixed(pattern)) for pattern in source.patterns}
        obstacles = {
            file: found
            for file in [*sorted(folders), *files[name]]
            if (found := obstacle(Path(file), os.R_OK | (os.X_OK if file in folders else 0)))
        }
        reasons = list(dict.fromkeys(obstacles.values()))
        for reason in reasons[:_FILES_NAMED]:
            file = next(file for file, why in obstacles.items() if why == reason)
            yield path, f"cannot read {file}: {reason}"
        if len(reasons) > _FILES_NAMED:
            yield path, f"cannot read its {len(obstacles)} files and directories in all"


def listed_files(loaded: Loaded) -> dict[str, list[str]]:
    """The files of each source that this process sees, up to some of them."""
    return {
        name: list(islice(files(source), _FILES_LOOKED_AT))
        for name, source in loaded.config.sources.items()
    }


def files(source: Any) -> Iterator[str]:
    for pattern in patterns(source):
        yield from filter(os.path.isfile, iglob(pattern, recursive=True))  # noqa: PTH207 - Path.glob takes no pattern that begins with /


def patterns(source: Any) -> list[str]:
    return source.patterns if isinstance(source, FileOptions) else []


def fixed(pattern: str) -> Path:
    """The deepest directory of a pattern that is there and has no wildcard."""
    path = Path(pattern).parent
    while has_magic(str(path)) or (not is_dir(path) and path != path.parent):
        path = path.parent
    return path


def obstacle(path: Path, access: int) -> str | None:
    """Why this process has no such access: what stands in its way; None if it has.

    A path that is not there is no obstacle.
    """
    for place in (*reversed(path.parents), path):
        if not os.access(place, access if place == path else os.X_OK):
            return _described(place, access) if exists(place) else None
    return None


def is_dir(path: Path) -> bool:
    """Whether this process sees that directory."""
    return exists(path) and path.is_dir()


def exists(path: Path) -> bool:
    """Whether this process sees that path."""
    try:
        return path.exists()
    except PermissionError:  # a directory above it is closed
        return False


def _described(path: Path, access: int) -> str:
    try:
        found = path.stat()
        if access & os.W_OK and os.statvfs(path).f_flag & os.ST_RDONLY:
            return f"the file system of {path} is mounted read-only"
    except OSError as error:
        return f"{path} ({error.strerror})"
    what = "directory" if stat.S_ISDIR(found.st_mode) else "file"
    mode = f"{stat.S_IMODE(found.st_mode):04o}"
    return f"{what} {path} has {user_name(found.st_uid)}:{_group(found.st_gid)} {mode}"


def user_name(number: int) -> str:
    """The name of a user of this machine, or the number."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # a container's user without a name
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def written(loaded: Loaded) -> Iterator[tuple[KeyPath, Path]]:
    """The files that the relay writes."""
    yield ("state_dir",), loaded.config.state_dir
    for name, sink in loaded.config.sinks.items():
        if sink.enabled and isinstance(sink, ArchiveOptions):
            yield ("sinks", name, "path"), sink.path
    for name, source in loaded.config.sources.items():
        for bind in source.binds if isinstance(source, Listening) else ():
            if bind.path:
                yield ("sources", name, "listen"), Path(bind.path)
