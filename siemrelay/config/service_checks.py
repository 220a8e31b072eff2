"""What the service's user cannot do that the configuration asks of it: read, write, listen.

`siemrelay check` runs these as root, for whom everything is allowed: a forked process becomes the
service's user and looks; what the unit grants or takes away is read from the unit.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import re
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import closing
from glob import has_magic, iglob
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from siemrelay.config.load import Loaded
from siemrelay.config.requirements import missing
from siemrelay.config.service_unit import ServiceUnit
from siemrelay.config.yaml_document import KeyPath, in_order
from siemrelay.core.errors import Fault
from siemrelay.net.listening_sockets import BindAddress, Listening
from siemrelay.sinks.file.sink import ArchiveOptions
from siemrelay.sinks.stream.unix import UnixOptions
from siemrelay.sources.file.source import FileOptions

READ_ALL: Final = "CAP_DAC_READ_SEARCH"
LOW_PORTS: Final = "CAP_NET_BIND_SERVICE"

_FILE_REFERENCE: Final = re.compile(r"\$\{file:([^}]+)\}")

# Of the files of one source; the others most likely have the same owner.
_FILES_LOOKED_AT: Final = 1000
_FILES_NAMED: Final = 3


def check_as_service(loaded: Loaded, unit: ServiceUnit, *, running: bool) -> list[Fault]:
    """Every fault, in the file's order; for root.

    `running`: a relay runs with this configuration and has its ports. Raises LookupError if the
    unit's user does not exist.
    """
    user = pwd.getpwnam(unit.user)
    found = [*_hidden(loaded, unit), *_read_only(loaded, unit)]
    if not running and not unit.sockets:
        found += _ports(loaded, unit)
    return in_order([*found, *_in_a_process_of(user, loaded, unit)])


def _in_a_process_of(user: pwd.struct_passwd, loaded: Loaded, unit: ServiceUnit) -> list[Fault]:
    """What that user finds. A process for it, since a process cannot become root again."""
    files = {name: list(islice(_files(source), _FILES_LOOKED_AT))
             for name, source in loaded.config.sources.items()}  # fmt: skip
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(read)
            os.initgroups(user.pw_name, user.pw_gid)
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
            os.environ["LOGNAME"] = user.pw_name
            looked = _look(user.pw_name, loaded, unit, files)
            with os.fdopen(write, "wb") as answer:
                answer.write(msgspec.json.encode(looked))
            os._exit(0)
        except BaseException:  # noqa: BLE001  (printed: nothing may run on in this process)
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(1)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        data = stream.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError(f"the process of user {user.pw_name} ended with {status}")
    return msgspec.json.decode(data, type=list[Fault])


def _look(user: str, loaded: Loaded, unit: ServiceUnit, files: dict[str, list[str]]) -> list[Fault]:
    """Runs as that user."""
    fault = loaded.document.fault
    faults, unreadable = missing(loaded.document, loaded.config.sources, loaded.config.sinks)
    if READ_ALL not in unit.capabilities:
        faults += unreadable  # in doubt only where another user may be the service's
        for path, why in _unreadable(loaded, files):
            faults.append(fault(path, f"the service's user {user} {why}"))
        for file in (loaded.file, *loaded.included):
            if obstacle := _obstacle(Path(file), os.R_OK):
                which = "this file" if file == loaded.file else file
                message = (
                    f"the service's user {user} cannot read {which}: {obstacle}; see chgrp, chmod"
                )
                faults.append(fault(() if file == loaded.file else ("include",), message))
    for path, place in _written(loaded):
        if any(place.is_relative_to(made) for made in unit.made):
            continue
        at = place if _exists(place) else place.parent
        if obstacle := _obstacle(at, os.W_OK | (os.X_OK if _is_dir(at) else 0)):
            message = f"the service's user {user} cannot write {place}: {obstacle}"
            faults.append(fault(path, message))
    for name, sink in loaded.config.sinks.items():
        if not (sink.enabled and isinstance(sink, UnixOptions)):
            continue
        if obstacle := _obstacle(sink.path, os.W_OK):
            message = f"the service's user {user} cannot write to this socket: {obstacle}"
            faults.append(fault(("sinks", name, "path"), message))
    return faults


def _unreadable(loaded: Loaded, files: dict[str, list[str]]) -> Iterator[tuple[KeyPath, str]]:
    for name, source in loaded.config.sources.items():
        if not isinstance(source, FileOptions):
            continue
        path: KeyPath = ("sources", name, "path")
        folders = {str(_fixed(pattern)) for pattern in source.patterns}
        obstacles = {
            file: obstacle
            for file in [*sorted(folders), *files[name]]
            if (obstacle := _obstacle(Path(file), os.R_OK | (os.X_OK if file in folders else 0)))
        }
        reasons = list(dict.fromkeys(obstacles.values()))
        for reason in reasons[:_FILES_NAMED]:
            file = next(file for file, why in obstacles.items() if why == reason)
            advice = "add it to a group that may (usermod -aG), or run"
            command = "`siemrelay install --read-all-files`"
            yield path, f"cannot read {file}: {reason}; {advice} {command}"
        if len(reasons) > _FILES_NAMED:
            yield path, f"cannot read its {len(obstacles)} files and directories in all"
    for at, text in loaded.shown.items():
        for file in _FILE_REFERENCE.findall(text):
            if obstacle := _obstacle(Path(file), os.R_OK):
                yield at, f"cannot read {file}: {obstacle}; or write ${{credential:NAME}}"


def _files(source: Any) -> Iterator[str]:
    for pattern in _patterns(source):
        # Patterns are text: a path would take `**` for a folder.
        yield from filter(os.path.isfile, iglob(pattern, recursive=True))  # noqa: PTH207


def _patterns(source: Any) -> list[str]:
    return source.patterns if isinstance(source, FileOptions) else []


def _fixed(pattern: str) -> Path:
    """The deepest directory of a pattern that is there and has no wildcard."""
    path = Path(pattern).parent
    while has_magic(str(path)) or (not path.is_dir() and path != path.parent):
        path = path.parent
    return path


def _obstacle(path: Path, access: int) -> str | None:
    """Why this process has no such access: what stands in its way; None if it has.

    A path that is not there is no obstacle.
    """
    for place in (*reversed(path.parents), path):
        if not os.access(place, access if place == path else os.X_OK):
            return _described(place) if _exists(place) else None
    return None


def _is_dir(path: Path) -> bool:
    return _exists(path) and path.is_dir()


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:  # a directory above it is closed
        return False


def _described(path: Path) -> str:
    try:
        found = path.stat()
    except OSError as error:
        return f"{path} ({error.strerror})"
    what = "directory" if stat.S_ISDIR(found.st_mode) else "file"
    mode = f"{stat.S_IMODE(found.st_mode):04o}"
    return f"{what} {path} has {_user(found.st_uid)}:{_group(found.st_gid)} {mode}"


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _written(loaded: Loaded) -> Iterator[tuple[KeyPath, Path]]:
    """What the relay writes."""
    yield ("state_dir",), loaded.config.state_dir
    for name, sink in loaded.config.sinks.items():
        if sink.enabled and isinstance(sink, ArchiveOptions):
            yield ("sinks", name, "path"), sink.path
    for name, source in loaded.config.sources.items():
        for bind in source.binds if isinstance(source, Listening) else ():
            if bind.path:
                yield ("sources", name, "listen"), Path(bind.path)


def _read_only(loaded: Loaded, unit: ServiceUnit) -> Iterator[Fault]:
    for path, place in _written(loaded):
        if not unit.may_write(place):
            folder = place if path == ("state_dir",) else place.parent
            yield loaded.document.fault(
                path,
                f"the service sees {place} read-only: add ReadWritePaths={folder} to the unit "
                "(systemctl edit siemrelay)",
            )


def _hidden(loaded: Loaded, unit: ServiceUnit) -> Iterator[Fault]:
    for name, source in loaded.config.sources.items():
        for pattern in _patterns(source):
            if why := unit.hides(_fixed(pattern)):
                yield loaded.document.fault(
                    ("sources", name, "path"),
                    f"the service does not see {pattern}: {why} in the unit hides it",
                )


def _ports(loaded: Loaded, unit: ServiceUnit) -> Iterator[Fault]:
    """Addresses that the service could not take, tried with root's rights."""
    endpoint = loaded.config.endpoint.address
    wanted: list[tuple[KeyPath, BindAddress]] = [
        (("sources", name, "listen"), bind)
        for name, source in loaded.config.sources.items()
        for bind in (source.binds if isinstance(source, Listening) else ())
        if not bind.path
    ]
    if endpoint is not None:
        wanted.append((("endpoint", "listen"), BindAddress(False, *endpoint)))
    lowest = _lowest_free_port()
    for path, bind in wanted:
        if 0 < bind.port < lowest and LOW_PORTS not in unit.capabilities:
            message = (
                f"the service may not listen on {bind}: ports below {lowest} need `siemrelay "
                "install --low-ports`, or a socket unit"
            )
            yield loaded.document.fault(path, message)
        elif why := _taken(bind):
            yield loaded.document.fault(path, f"cannot listen on {bind}: {why}")


def _lowest_free_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        return 1024


def _taken(bind: BindAddress) -> str | None:
    kind = socket.SOCK_DGRAM if bind.datagrams else socket.SOCK_STREAM
    try:
        found = socket.getaddrinfo(bind.host, bind.port, type=kind, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in found:
            with closing(socket.socket(family, kind)) as sock:
                if not bind.datagrams:  # connections that have just ended are no obstacle
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(address)
    except socket.gaierror as error:
        return f"{bind.host} cannot be resolved ({error.strerror})"
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return "another program has it (ss -ltnup shows which)"
        return os.strerror(error.errno or 0)
    return None
