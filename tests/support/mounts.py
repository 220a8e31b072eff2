"""File systems of other kinds, mounted for a test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def tmpfs(directory: Path) -> Iterator[Path]:
    """A tmpfs."""
    with _mounted(directory / "tmpfs", "-t", "tmpfs", "tmpfs") as there:
        yield there


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
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    try:
        yield there
    finally:
        # Lazily: what a failed test left open there must not fail the next one.
        subprocess.run(["umount", "--lazy", str(there)], check=True)
