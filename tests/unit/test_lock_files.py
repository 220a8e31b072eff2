"""The lock files have every package that the project asks for, with hashes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
HOW = (
    "run: uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate "
    "--no-header --extra EXTRA pyproject.toml -o FILE"
)


def asked_for(requirements: list[str]) -> dict[str, str]:
    pairs = (re.fullmatch(r"([\w.-]+)(.*)", item) for item in requirements)
    return {pair[1].lower().replace("_", "-"): pair[2] for pair in pairs if pair}


@pytest.mark.parametrize(
    ("file", "extras"),
    [
        ("requirements.lock", ("redis", "amqp", "kafka", "regex", "timestamps")),
        ("requirements-test.lock", ("test",)),
    ],
)
def test_a_lock_file_has_each_package_within_its_bounds_and_with_hashes(
    file: str, extras: tuple[str, ...]
) -> None:
    text = (ROOT / file).read_text()
    locked = dict(re.findall(r"(?m)^([\w.-]+)==([\w.]+)", text))
    wanted = asked_for(PROJECT["dependencies"])
    for extra in extras:
        wanted |= asked_for(EXTRAS[extra])
    assert wanted.keys() - locked.keys() == set(), HOW
    for name, bounds in wanted.items():
        assert within(locked[name], bounds), (name, HOW)
    entries = re.split(r"(?m)^(?=[\w.-]+==)", text)[1:]
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


def within(version: str, bounds: str) -> bool:
    number = numbers(version)
    for sign, bound in re.findall(r"(>=|<)([\d.]+)", bounds):
        if (number < numbers(bound)) == (sign == ">="):
            return False
    return True


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))
