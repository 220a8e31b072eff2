"""Resources that a configuration needs and this machine lacks: PEM files, packages, ports, room.

`load` accepts such a configuration: a file may be missing for a while, and only the part that needs
it waits for it. `siemrelay check` reports what is certain as a fault; `siemrelay run` logs it and
starts. What another user or moment may settle is a warning of `siemrelay check`.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
import stat
from collections.abc import Collection, Iterator
from contextlib import closing
from glob import has_magic, iglob
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from siemrelay.config.cross_checks import share_a_relay
from siemrelay.config.load import Loaded
from siemrelay.config.requirements import missing
from siemrelay.config.yaml_document import KeyPath, in_order
from siemrelay.core.errors import Fault
from siemrelay.core.options import show_bytes
from siemrelay.net.listening_sockets import BindAddress, Listening
from siemrelay.sinks.file.sink import ArchiveOptions
from siemrelay.sinks.http.options import TransportOptions
from siemrelay.sources.file.options import FileOptions
from siemrelay.telemetry.status_text import size

# Of the files of one source; the others most likely have the same owner.
_FILES_LOOKED_AT: Final = 1000
_FILES_NAMED: Final = 3


def missing_resources(loaded: Loaded) -> tuple[list[Fault], list[Fault]]:
    """Faults that are certain, and those that this user cannot settle, each with its line.

    Looks at enabled sinks and all sources, and reads the files that they name.
    """
    faults, uncertain = missing(loaded.document, loaded.config.sources, loaded.config.sinks)
    for name, sink in loaded.config.sinks.items():
        if sink.enabled and isinstance(sink, TransportOptions):
            # With urllib's requests: a start pays for the parts that it has.
            from siemrelay.sinks.http.proxies import unusable_proxies

            # A doubt: the relay may be started with other variables than this command.
            named = next(key for key in ("url", "endpoint") if hasattr(sink, key))
            uncertain += [
                loaded.document.fault(
                    ("sinks", name, named), f"no request can be made here: {unusable}"
                )
                for unusable in unusable_proxies()
            ]
    return in_order(faults), in_order(uncertain)


def resource_warnings(
    loaded: Loaded, *, as_this_user: bool, ports: bool, running: bool | None,
    made: Collection[Path] = (),
) -> list[Fault]:  # fmt: skip
    """Conditions that may keep parts from working, in the file's order.

    `as_this_user`: the relay would run as the user of this process, whose rights therefore count.
    `ports`: whether to try them; a relay that is `running` with this configuration has them (None:
    it may be). `made` are directories that systemd makes at the start.
    """
    found = [*_without_directory(loaded, made), *_too_large(loaded), *_read_twice(loaded)]
    if as_this_user:
        found += _forbidden(loaded)
    if ports and not running:
        found += _ports(loaded, as_this_user=as_this_user, running=running)
    return in_order(found)


def _forbidden(loaded: Loaded) -> Iterator[Fault]:
    user = user_name(os.geteuid())
    for path, why in unreadable(loaded, listed_files(loaded)):
        advice = "let the relay's user read it (chgrp, or setfacl -m u:USER:rX)"
        yield loaded.document.fault(path, f"user {user} {why}; {advice}")
    place = loaded.config.state_dir
    at = next(each for each in (place, *place.parents) if exists(each))
    if found := obstacle(at, os.W_OK | os.X_OK):
        yield loaded.document.fault(
            ("state_dir",), f"user {user} cannot write {place}: {found}; set `state_dir` to "
            "another place, or run the relay as another user")  # fmt: skip
    elif exists(place) and place.stat().st_mode & stat.S_IWOTH:
        yield loaded.document.fault(
            ("state_dir",), f"every user of this machine can remove and replace the buffer in "
            f"{place} (chmod o-w)")  # fmt: skip


def _without_directory(loaded: Loaded, made: Collection[Path]) -> Iterator[Fault]:
    for path, place in written(loaded):
        folder = place.parent
        if path == ("state_dir",) or exists(folder) or any(map(folder.is_relative_to, made)):
            continue
        if obstacle(folder, os.X_OK) is None:
            yield loaded.document.fault(
                path, f"there is no directory {folder}; make it, and give it to the relay's user"
            )


def _read_twice(loaded: Loaded) -> Iterator[Fault]:
    """Every source that reads files which an earlier one of the same relay reads."""
    earlier = dict[str, str]()
    for name, found in listed_files(loaded).items():
        twice = next((file for file in found if file in earlier), None)
        if twice is not None and share_a_relay(
            loaded.config.sources[name], loaded.config.sources[earlier[twice]]
        ):
            yield loaded.document.fault(
                ("sources", name, "path"),
                f"source `{earlier[twice]}` reads {twice} too: its records are stored and sent "
                "twice; let `path` of only one source match it",
            )
        for file in found:
            earlier.setdefault(file, name)


def _too_large(loaded: Loaded) -> Iterator[Fault]:
    place, wanted = loaded.config.state_dir, loaded.config.buffer.max_size
    at = next(each for each in (place, *place.parents) if exists(each))
    system = os.statvfs(at)
    whole = system.f_blocks * system.f_frsize
    if wanted > whole:
        yield loaded.document.fault(
            ("buffer", "max_size"),
            f"{show_bytes(wanted)} is more than the whole file system of {place} has "
            f"({size(whole)}): the disk would be full first, and intake wait; lower "
            "`buffer.max_size`, or put `state_dir` on a larger file system",
        )


def _ports(loaded: Loaded, *, as_this_user: bool, running: bool | None) -> Iterator[Fault]:
    for path, bind in addresses(loaded):
        why = taken(bind)
        if why is None or (why.number == errno.EACCES and not as_this_user):
            continue
        text = why.text
        if why.number == errno.EACCES:
            text = (f"user {user_name(os.geteuid())} may not: ports below {lowest_free_port()} are "
                    "for root and, by `siemrelay install --low-ports`, the service")  # fmt: skip
        elif why.number == errno.EADDRINUSE and running is None:
            text = f"the relay itself, if it runs, or {text}"
        yield loaded.document.fault(path, f"cannot listen on {bind}: {text}")


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


def addresses(loaded: Loaded) -> list[tuple[KeyPath, BindAddress]]:
    """The ports that the relay listens on, with where they are named."""
    found: list[tuple[KeyPath, BindAddress]] = [
        (("sources", name, "listen"), bind)
        for name, source in loaded.config.sources.items()
        for bind in (source.binds if isinstance(source, Listening) else ())
        if not bind.path
    ]
    if (endpoint := loaded.config.endpoint.address) is not None:
        found.append((("endpoint", "listen"), BindAddress(False, *endpoint)))
    return found


def lowest_free_port() -> int:
    """The lowest port that every user may take."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        return 1024


class AddressRefused(NamedTuple):
    """Why an address cannot be taken: the system's error number, 0 without one, and a text."""

    number: int
    text: str


def taken(bind: BindAddress) -> AddressRefused | None:
    """Why this process cannot listen there; None if it can."""
    kind = socket.SOCK_DGRAM if bind.datagrams else socket.SOCK_STREAM
    try:
        found = socket.getaddrinfo(bind.host, bind.port, type=kind, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in found:
            with closing(socket.socket(family, kind)) as sock:
                if not bind.datagrams:  # connections that have just ended are no obstacle
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(address)
    except socket.gaierror as error:
        return AddressRefused(0, f"{bind.host} cannot be resolved ({error.strerror})")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return AddressRefused(error.errno, "another program has it (ss -ltnup shows which)")
        if error.errno == errno.EADDRNOTAVAIL:
            text = "this machine has no such address (ip addr); 0.0.0.0 stands for all of them"
            return AddressRefused(error.errno, text)
        return AddressRefused(error.errno or 0, os.strerror(error.errno or 0))
    return None
