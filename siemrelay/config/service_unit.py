"""The installed systemd unit, as far as it decides what the service may read, write and listen at.

Reads the unit and its drop-ins from the directories that systemd reads (systemd.unit(5)), so that
it works without a running systemd.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

NAME: Final = "siemrelay.service"

_FOLDERS: Final = (
    "etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system",
    "usr/lib/systemd/system", "lib/systemd/system",
)  # fmt: skip
"""Below the root directory; the first that has a file wins."""

# Setting → where its directories lie.
_DIRECTORIES: Final = {
    "StateDirectory": "/var/lib", "LogsDirectory": "/var/log", "RuntimeDirectory": "/run",
    "CacheDirectory": "/var/cache",
}  # fmt: skip

# What these settings take away from the service (systemd.exec(5)).
_HOMES: Final = ("/home", "/root", "/run/user")
_TEMPORARY: Final = ("/tmp", "/var/tmp")


class ServiceUnit(msgspec.Struct, frozen=True):
    """The settings of a unit. `writable` is None if nothing is read-only."""

    user: str
    config: str
    credentials: Mapping[str, Path]
    environment: Mapping[str, str]
    capabilities: frozenset[str]
    made: tuple[Path, ...]
    """Directories that systemd makes for the service when it starts."""
    writable: tuple[Path, ...] | None
    hidden: Mapping[Path, str]
    """Directories that the service does not see, with the setting that hides them."""
    sockets: bool
    """Whether a socket unit opens the ports."""
    stop_timeout_s: float = 90.0
    """After so long systemd kills a service that is to stop; infinite if it never does."""

    def may_write(self, path: Path) -> bool:
        """Whether the unit leaves that path writable."""
        allowed = self.writable
        return allowed is None or any(path.is_relative_to(one) for one in allowed)

    def hides(self, path: Path) -> str | None:
        """The setting that hides that path from the service, or None."""
        return next((why for one, why in self.hidden.items() if path.is_relative_to(one)), None)


def service_unit(root: Path = Path("/")) -> ServiceUnit | None:
    """The installed unit; None if there is none that this user can read."""
    try:
        text = [path.read_text() for path in _paths(NAME, root)]
    except OSError:
        return None
    if not text:
        return None
    settings = _settings("\n".join(text))

    def last(name: str, default: str = "") -> str:
        return settings.get(name, [default])[-1]

    def words(name: str) -> list[str]:
        return [word for value in settings.get(name, ()) for word in value.split()]

    made = [Path(base) / one for name, base in _DIRECTORIES.items() for one in words(name)]
    strict = last("ProtectSystem") == "strict"
    given = [Path(word.lstrip("-+")) for word in words("ReadWritePaths")]
    private = [Path(place) for place in _TEMPORARY if _on(last("PrivateTmp"))]
    return ServiceUnit(
        user=last("User", "root"),
        config=_config_of(last("ExecStart")),
        credentials=_credentials(settings.get("LoadCredential", [])),
        environment=_environment(settings, root),
        capabilities=frozenset(words("AmbientCapabilities")),
        made=tuple(made),
        writable=(*made, *given, *private, Path("/dev"), Path("/proc")) if strict else None,
        hidden={
            **{Path(p): "ProtectHome=" for p in _HOMES if last("ProtectHome") not in ("", "no")},
            **dict.fromkeys(private, "PrivateTmp="),
        },
        sockets=any(_paths(NAME.replace(".service", ".socket"), root)),
        stop_timeout_s=_time_span_s(last("TimeoutStopSec", last("TimeoutSec", "90"))),
    )


def _time_span_s(value: str) -> float:
    """`45`, `1min 30s` or `infinity` (systemd.time(7)); systemd's default for anything else."""
    parts = _TIME_SPAN.findall(value)
    if value in ("infinity", "0"):
        return math.inf
    try:
        return sum(float(number) * _SECONDS[unit] for number, unit in parts) or 90.0
    except KeyError:
        return 90.0


_TIME_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")
_SECONDS: Final = {
    "ms": 0.001, **dict.fromkeys(("", "s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600.0),
}  # fmt: skip


def _on(value: str) -> bool:
    return value.lower() in ("yes", "true", "on", "1", "disconnected")


def _paths(name: str, root: Path) -> Iterator[Path]:
    """The unit's file and its drop-ins, in the order in which they are read."""
    folders = [root / folder for folder in _FOLDERS]
    unit = next((path for folder in folders if (path := folder / name).exists()), None)
    if unit is None:
        return
    yield unit
    drop_ins: dict[str, Path] = {}
    for folder in reversed(folders):  # the first folder's file of a name replaces the others
        drop_ins.update({path.name: path for path in (folder / f"{name}.d").glob("*.conf")})
    yield from (drop_ins[file] for file in sorted(drop_ins))


def _settings(text: str) -> dict[str, list[str]]:
    """Every setting with its values; an empty value takes the earlier ones away."""
    settings: dict[str, list[str]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        name, sign, value = line.strip().partition("=")
        if not sign or name.startswith(("#", ";")):
            continue
        if value.strip():
            settings.setdefault(name.strip(), []).append(value.strip())
        else:
            settings[name.strip()] = []
    return {name: values for name, values in settings.items() if values}


def _config_of(command: str) -> str:
    words = command.split()
    flags = [i for i, word in enumerate(words[:-1]) if word in ("-c", "--config")]
    return words[flags[-1] + 1] if flags else ""


def _credentials(values: list[str]) -> dict[str, Path]:
    pairs = (value.partition(":") for value in values)
    return {name: Path(path) for name, _, path in pairs if path.startswith("/")}


def _environment(settings: Mapping[str, list[str]], root: Path) -> dict[str, str]:
    lines = [word for value in settings.get("Environment", ()) for word in _split(value)]
    for name in settings.get("EnvironmentFile", ()):
        try:
            text = (root / name.lstrip("-/")).read_text()
        except (OSError, UnicodeDecodeError):
            continue  # only root reads it
        for line in text.splitlines():
            variable, sign, value = line.strip().partition("=")
            if sign and not variable.startswith(("#", ";")):
                lines.append(f"{variable}={' '.join(_split(value))}")
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # an open quote, which systemd warns of
        return [text]


def is_service_config(unit: ServiceUnit, file: str) -> bool:
    """Whether that is the file that the service runs with."""
    return Path(file).resolve() == Path(unit.config).resolve()
