"""File systems of other kinds, mounted for a test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.servers import missing


@contextmanager
def tmpfs(directory: Path, size: str = "50%") -> Iterator[Path]:
    """A tmpfs of that size."""
    with _mounted(directory / "tmpfs", "-t", "tmpfs", "-o", f"size={size}", "tmpfs") as there:
        yield there


class SmallDisk:
    """A file system that can be filled and freed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Take all the room that there is, also what was freed since."""
        with self._ballast.open("ab", buffering=0) as ballast:
            for size in (1 << 20, 4096):
                with suppress(OSError):
                    while ballast.write(bytes(size)) == size:
                        pass

    def leave(self, size_bytes: int) -> None:
        """Give back so much of it."""
        os.truncate(self._ballast, self._ballast.stat().st_size - size_bytes)

    def free(self) -> None:
        """Give it back."""
        self._ballast.unlink()


@contextmanager
def small_disk(directory: Path, size: str = "24m") -> Iterator[SmallDisk]:
    """One of that size. A buffer takes some MiB by itself: a log of 16 MiB at the most."""
    with tmpfs(directory, size) as there:
        yield SmallDisk(there)


@contextmanager
def overlay(directory: Path) -> Iterator[Path]:
    """An overlayfs over `directory`/lower, as a container has it over its image."""
    layers = {name: directory / name for name in ("lower", "upper", "work")}
    for layer in layers.values():
        layer.mkdir(exist_ok=True)
    options = "lowerdir={lower},upperdir={upper},workdir={work}".format(**layers)
    with _mounted(directory / "merged", "-t", "overlay", "overlay", "-o", options) as there:
        yield there


@contextmanager
def _mounted(there: Path, *arguments: str) -> Iterator[Path]:
    there.mkdir()
    done = subprocess.run(
        ["mount", *arguments, str(there)], capture_output=True, text=True, check=False
    )
    if done.returncode and "overlay" in arguments:
        pytest.skip(f"no overlay over this file system: {done.stderr.strip()}")
    if done.returncode:
        missing(f"mounting is not permitted here: {done.stderr.strip()}")
    try:
        yield there
    finally:
        # Lazily: what a failed test left open there must not fail the next one.
        subprocess.run(["umount", "--lazy", str(there)], check=True)
