"""The files that the service needs outside the Python environment: what they hold, where they go.

Their source is the folder `systemd` at the top of the repository, which is in the package as data.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Final, NamedTuple

from siemrelay.cli.setup.completion import script
from siemrelay.cli.setup.man_pages import pages
from siemrelay.config.json_schema import render as render_schema

_UNIT_PROGRAM: Final = "/opt/siemrelay/bin/siemrelay"
"""Where the unit expects the program; replaced by where it is."""

DROP_INS: Final = ("low-ports.conf", "read-all-files.conf")
"""Parts of the unit that only some machines need; the options of `install` have their names."""


_COMPLETIONS: Final = {
    "bash": "bash-completion/completions/siemrelay",
    "zsh": "zsh/site-functions/_siemrelay",
    "fish": "fish/vendor_completions.d/siemrelay.fish",
}
"""Shell → where it looks for completions below `share`."""


class SystemFile(NamedTuple):
    """One file, readable by everybody: its absolute path on the machine and its content.

    A symbolic link has `link_to`, and no content.
    """

    path: Path
    content: bytes = b""
    link_to: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of the content, or of the link's target: the same for equal files."""
        return hashlib.sha256(self.content or f"link to {self.link_to}".encode()).hexdigest()

    def below(self, root: Path) -> Path:
        """Its path where `root` is the machine's root directory."""
        return root / self.path.relative_to("/")

    def write(self, root: Path) -> None:
        """Write it, with the directories above it, at once or not at all. Raises OSError."""
        path = self.below(root)
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        new.unlink(missing_ok=True)
        if self.link_to:
            new.symlink_to(self.link_to)
        else:
            new.write_bytes(self.content)
            new.chmod(0o644)
        new.replace(path)


def found(path: Path, root: Path) -> SystemFile | None:
    """The file that is at that path now; None if there is none. Raises OSError."""
    here = SystemFile(path).below(root)
    if here.is_symlink():
        return SystemFile(path, link_to=str(here.readlink()))
    return SystemFile(path, here.read_bytes()) if here.exists() else None


def system_files(program: str, prefix: Path, drop_ins: Mapping[str, bool]) -> list[SystemFile]:
    """Every file of a machine on which `program` is the relay's command.

    `prefix` is `/usr/local`, or `/usr` in a package. `drop_ins` says which of DROP_INS to take.
    """
    return list(_files(program, prefix, drop_ins))


def _files(program: str, prefix: Path, drop_ins: Mapping[str, bool]) -> Iterator[SystemFile]:
    source, lib = files(__package__) / "systemd", prefix / "lib"
    unit = (source / "siemrelay.service").read_text().replace(_UNIT_PROGRAM, program)
    yield SystemFile(lib / "systemd/system/siemrelay.service", unit.encode())
    for name in DROP_INS:
        if drop_ins[name]:
            path = lib / "systemd/system/siemrelay.service.d" / name
            yield SystemFile(path, (source / name).read_bytes())
    for kind in ("sysusers", "tmpfiles"):
        content = (source / f"siemrelay.{kind}").read_bytes()
        yield SystemFile(lib / f"{kind}.d/siemrelay.conf", content)
    share = prefix / "share/siemrelay"
    yield SystemFile(share / "siemrelay.schema.json", render_schema().encode())
    for name in ("alerts.yml", "grafana-dashboard.json"):
        yield SystemFile(share / name, (source / name).read_bytes())
    for shell, place in _COMPLETIONS.items():
        yield SystemFile(prefix / "share" / place, script(shell).encode())
    for name, page in pages().items():
        yield SystemFile(prefix / "share/man/man1" / f"{name}.gz", _compressed(page))
    if (link := prefix / "bin/siemrelay") != Path(program):
        yield SystemFile(link, link_to=program)


def _compressed(page: str) -> bytes:
    return gzip.compress(page.encode(), 9, mtime=0)  # the same bytes every time


class Manifest:
    """Which files an earlier `siemrelay install` wrote, and what they held."""

    def __init__(self, prefix: Path, root: Path) -> None:
        self._file = SystemFile(prefix / "lib/siemrelay/installed.sha256")
        self._root = root
        try:
            lines = self._file.below(root).read_text().splitlines()
        except FileNotFoundError:
            lines = []
        pairs = (line.partition("  ") for line in lines)
        self.digests = {Path(path): digest for digest, _, path in pairs}

    @property
    def path(self) -> Path:
        """Where it is written."""
        return self._file.path

    def wrote(self, file: SystemFile) -> bool:
        """Whether the file is as it was written: nobody has changed it since."""
        return self.digests.get(file.path) == file.digest

    def save(self) -> None:
        """Write it; without any files, remove it. Raises OSError."""
        if self.digests:
            lines = [f"{digest}  {path}\n" for path, digest in self.digests.items()]
            self._file._replace(content="".join(lines).encode()).write(self._root)
        else:
            self._file.below(self._root).unlink(missing_ok=True)
