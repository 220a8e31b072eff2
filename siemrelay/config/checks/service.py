"""Permissions that the service's user lacks for a configuration: to read, write, listen.

`siemrelay check` runs these as root, for whom everything is allowed: a forked process becomes the
service's user and looks; what the unit grants or takes away is read from the unit.
"""

from __future__ import annotations

import os
import pwd
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from siemrelay.config.checks.addresses import addresses, lowest_free_port, taken
from siemrelay.config.checks.paths import (
    exists,
    fixed,
    is_dir,
    listed_files,
    obstacle,
    patterns,
    unreadable,
    written,
)
from siemrelay.config.load import Loaded
from siemrelay.config.requirements import missing
from siemrelay.config.service_unit import ServiceUnit
from siemrelay.config.yaml_document import KeyPath, in_order
from siemrelay.core.errors import Fault
from siemrelay.core.options import show_seconds
from siemrelay.sinks.stream.unix import UnixOptions

READ_ALL: Final = "CAP_DAC_READ_SEARCH"
LOW_PORTS: Final = "CAP_NET_BIND_SERVICE"

_FILE_REFERENCE: Final = re.compile(r"\$\{file:([^}]+)\}")


def check_as_service(loaded: Loaded, unit: ServiceUnit, *, running: bool) -> list[Fault]:
    """Every fault, in the file's order; for root.

    `running`: a relay runs with this configuration and has its ports. Raises LookupError if the
    unit's user does not exist.
    """
    user = pwd.getpwnam(unit.user)
    found = [*_hidden(loaded, unit), *_read_only(loaded, unit), *_killed(loaded, unit)]
    if not running and not unit.sockets:
        found += _ports(loaded, unit)
    return in_order([*found, *_in_a_process_of(user, loaded, unit)])


def _in_a_process_of(user: pwd.struct_passwd, loaded: Loaded, unit: ServiceUnit) -> list[Fault]:
    """The faults of that user. A process for it, since a process cannot become root again."""
    files = listed_files(loaded)
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
    faults, doubtful = missing(loaded.document, loaded.config.sources, loaded.config.sinks)
    if READ_ALL not in unit.capabilities:
        faults += doubtful  # in doubt only where another user may be the service's
        for path, why in _unreadable(loaded, files):
            faults.append(fault(path, f"the service's user {user} {why}"))
        for file in (loaded.file, *loaded.included):
            if found := obstacle(Path(file), os.R_OK):
                which = "this file" if file == loaded.file else file
                message = (
                    f"the service's user {user} cannot read {which}: {found}; see chgrp, chmod"
                )
                faults.append(fault(() if file == loaded.file else ("include",), message))
        for place, mode in _of_products(loaded):
            if found := obstacle(place, mode):
                message = f"the service's user {user} cannot read {place}: {found}"
                faults.append(fault(("products_dir",), message))
    for path, place in written(loaded):
        if any(place.is_relative_to(made) for made in unit.made):
            continue
        at = place if exists(place) else place.parent
        if found := obstacle(at, os.W_OK | (os.X_OK if is_dir(at) else 0)):
            message = f"the service's user {user} cannot write {place}: {found}"
            faults.append(fault(path, message))
    for name, sink in loaded.config.sinks.items():
        if not (sink.enabled and isinstance(sink, UnixOptions)):
            continue
        if found := obstacle(sink.path, os.W_OK):
            message = f"the service's user {user} cannot write to this socket: {found}"
            faults.append(fault(("sinks", name, "path"), message))
    return faults


def _of_products(loaded: Loaded) -> Iterator[tuple[Path, int]]:
    """The directory of the operator's products and the files in it, each with how it is opened."""
    folder = loaded.config.products_dir
    if folder is not None:
        yield folder, os.R_OK | os.X_OK
        yield from ((file, os.R_OK) for file in sorted(folder.glob("*.yaml")))


def _unreadable(loaded: Loaded, files: dict[str, list[str]]) -> Iterator[tuple[KeyPath, str]]:
    advice = "add it to a group that may (usermod -aG), or run `siemrelay install --read-all-files`"
    for path, why in unreadable(loaded, files):
        yield path, f"{why}; {advice}"
    for at, text in loaded.shown.items():
        for file in _FILE_REFERENCE.findall(text):
            if found := obstacle(Path(file), os.R_OK):
                yield at, f"cannot read {file}: {found}; or write ${{credential:NAME}}"


def _read_only(loaded: Loaded, unit: ServiceUnit) -> Iterator[Fault]:
    for path, place in written(loaded):
        if not unit.may_write(place):
            folder = place if path == ("state_dir",) else place.parent
            yield loaded.document.fault(
                path,
                f"the service sees {place} read-only: add ReadWritePaths={folder} to the unit "
                "(systemctl edit siemrelay)",
            )


def _killed(loaded: Loaded, unit: ServiceUnit) -> Iterator[Fault]:
    wanted = loaded.config.shutdown_timeout
    if wanted >= unit.stop_timeout_s:
        yield loaded.document.fault(
            ("shutdown_timeout",),
            f"systemd kills the service {show_seconds(unit.stop_timeout_s)} after a stop: set a "
            f"longer TimeoutStopSec= than {show_seconds(wanted)} in the unit (systemctl edit "
            "siemrelay), or a shorter time here",
        )


def _hidden(loaded: Loaded, unit: ServiceUnit) -> Iterator[Fault]:
    for name, source in loaded.config.sources.items():
        for pattern in patterns(source):
            if why := unit.hides(fixed(pattern)):
                yield loaded.document.fault(
                    ("sources", name, "path"),
                    f"the service does not see {pattern}: {why} in the unit hides it",
                )


def _ports(loaded: Loaded, unit: ServiceUnit) -> Iterator[Fault]:
    """Addresses that the service could not take, tried with root's rights."""
    lowest = lowest_free_port()
    for path, bind in addresses(loaded):
        if 0 < bind.port < lowest and LOW_PORTS not in unit.capabilities:
            message = (
                f"the service may not listen on {bind}: ports below {lowest} need `siemrelay "
                "install --low-ports`, or a socket unit"
            )
            yield loaded.document.fault(path, message)
        elif why := taken(bind):
            yield loaded.document.fault(path, f"cannot listen on {bind}: {why.text}")
