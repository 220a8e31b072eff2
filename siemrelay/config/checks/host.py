"""Conditions of this machine that may keep parts from working: warnings of `siemrelay check`."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from siemrelay.config.checks.addresses import addresses, lowest_free_port, taken
from siemrelay.config.checks.paths import (
    exists,
    listed_files,
    obstacle,
    unreadable,
    user_name,
    written,
)
from siemrelay.config.cross_checks import share_a_relay
from siemrelay.config.load import Loaded
from siemrelay.config.yaml_document import in_order
from siemrelay.core.errors import Fault
from siemrelay.core.options import show_bytes
from siemrelay.telemetry.status_text import size


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
        if path[0] == "sinks" and exists(place) and place.is_dir():
            yield loaded.document.fault(path, f"{place} is a directory; name a file in it")
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
