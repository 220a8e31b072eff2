"""The picture in the head is true: who may import whom, what is pure, how long a module is."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import siemrelay

ROOT = Path(siemrelay.__file__).parent
MOST_LINES = 400
MOST_MODULES = 20
MOST_ROOT_MODULES = 3

RANKS = {
    name: rank
    for rank, names in enumerate([
        "core",
        "wire net durable_files",
        "decoders formats proof",
        "products transforms",
        "telemetry",
        "buffer",
        "sources sinks",
        "pipeline",
        "registry",
        "config",
        "relay",
        "demo",
        "cli",
        "__main__",
    ])
    for name in names.split()
}  # fmt: skip
"""A folder or root module of siemrelay → its rank; it may import from lower ranks only."""

PURE = {"core", "wire", "decoders", "formats", "proof", "transforms"}

NOT_IN_PURE_RANKS = {
    "trio", "socket", "ssl", "select", "selectors", "asyncio", "threading", "subprocess", "signal",
    "time", "os", "pathlib", "io", "tempfile", "shutil", "fcntl", "sqlite3", "random", "secrets",
    "uuid", "logging", "structlog", "prometheus_client", "inotify_simple", "httpx2", "h11", "click",
    "rich", "yaml",
}  # fmt: skip
"""What reaches out of the process, waits or logs: pure folders take and return values."""

MODULES = sorted(ROOT.rglob("*.py"))
TESTS = sorted(Path(__file__).parents[1].rglob("test_*.py"))
SHARED_BY_TESTS = sorted((Path(__file__).parents[1] / "support").rglob("*.py"))


def name_of(path: Path) -> str:
    """`decoders.json`, `event`; of the package itself, the empty name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Every module named in an import, anywhere in the file, by its full name; and the line."""
    package = ["siemrelay", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                # `from siemrelay import x` may name a module or a value of the package.
                inner = f"{module}.{alias.name}"
                yield (inner if is_module(inner) else module), node.lineno


def is_module(name: str) -> bool:
    place = ROOT.parent.joinpath(*name.split("."))
    return place.with_suffix(".py").exists() or (place / "__init__.py").exists()


def own(path: Path) -> Iterator[tuple[str, int]]:
    for module, line in imported(path):
        if module.startswith("siemrelay."):
            yield module.removeprefix("siemrelay."), line


def top(name: str) -> str:
    return name.partition(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_has_a_rank_and_imports_only_from_below(path: Path) -> None:
    name = name_of(path)
    if not name:
        assert not list(own(path)), "importing the package may not load the relay"
        return
    assert top(name) in RANKS, f"give {top(name)} a rank"
    upward = [
        f"{name}:{line} (rank {RANKS[top(name)]}) imports {other} (rank {RANKS[top(other)]})"
        for other, line in own(path)
        if not may_import(top(name), top(other))
    ]
    assert not upward


def may_import(name: str, other: str) -> bool:
    """Whether a module in the folder `name` may import one in `other`: itself or a lower rank."""
    return name == other or RANKS[other] < RANKS[name]


IN_MEMORY = "from io import BytesIO"
"""Bytes in memory with a fast way to find lines: nothing outside is touched."""


@pytest.mark.parametrize("path", [p for p in MODULES if top(name_of(p)) in PURE], ids=name_of)
def test_a_pure_module_does_nothing_but_compute(path: Path) -> None:
    lines = path.read_text().splitlines()
    impure = [f"line {line}: {module}" for module, line in imported(path)
              if top(module) in NOT_IN_PURE_RANKS and lines[line - 1] != IN_MEMORY]  # fmt: skip
    assert not impure


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_short_enough_to_be_read_at_once(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_named_for_what_it_does(path: Path) -> None:
    nothing = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager"}
    assert not nothing & set(name_of(path).split("."))
    assert len(path.relative_to(ROOT).parts) <= 3, "two levels of folders"


def test_a_folder_is_small_enough_to_be_known_from_its_listing() -> None:
    modules = [*MODULES, *SHARED_BY_TESTS]
    sizes = Counter(path.parent for path in modules if path.name != "__init__.py")
    crowded = {str(folder): n for folder, n in sizes.items() if n > MOST_MODULES}
    assert not crowded
    assert sizes[ROOT] <= MOST_ROOT_MODULES


def component(name: str) -> str:
    """`sources.file.reader` → `sources.file`; a module directly in a folder stands for itself."""
    return ".".join(name.split(".")[:2])


def test_siblings_within_a_folder_do_not_import_each_other_in_circles() -> None:
    graph: dict[str, set[str]] = defaultdict(set)
    for path in MODULES:
        me = component(name_of(path))
        graph[me] |= {component(other) for other, _ in own(path)} - {me}
    assert_acyclic(graph)


def test_no_imports_go_in_circles() -> None:
    assert_acyclic({name_of(path): {module for module, _ in own(path)} for path in MODULES})


def assert_acyclic(graph: Mapping[str, set[str]]) -> None:
    done: set[str] = set()

    def follow(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for other in graph.get(name, ()):
                follow(other, (*trail, name))
            done.add(name)

    for name in list(graph):
        follow(name, ())


def test_no_two_public_classes_have_one_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name_of(path))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_every_import_is_of_a_module_that_exists() -> None:
    missing = [f"{name_of(path)}:{line}: siemrelay.{module}" for path in MODULES
               for module, line in own(path) if not is_module(f"siemrelay.{module}")]  # fmt: skip
    assert not missing


def test_every_test_that_the_code_names_exists() -> None:
    tests = {file.stem for file in TESTS} | {
        name for file in TESTS for name in re.findall(r"\bdef (test_\w+)\(", file.read_text())
    }
    gone = {f"{name_of(path)}: {name}" for path in MODULES
            for name in re.findall(r"\btest_[a-z]+_\w+", path.read_text())
            if name not in tests}  # fmt: skip
    assert not gone


def test_the_rules_see_what_they_forbid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "siemrelay"
    (package / "formats").mkdir(parents=True)
    (package / "decoders").mkdir()
    for name in ("__init__", "formats/__init__", "decoders/__init__", "decoders/x", "relay"):
        (package / f"{name}.py").touch()
    bad = package / "formats" / "bad.py"
    bad.write_text(
        "def f():\n    import os.path\n    from siemrelay import relay\n"
        "    from ..decoders import x\n    from . import bad\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "ROOT", package)
    assert list(imported(bad)) == [
        ("os.path", 2), ("siemrelay.relay", 3), ("siemrelay.decoders.x", 4),
        ("siemrelay.formats.bad", 5),
    ]  # fmt: skip
    with pytest.raises(AssertionError, match=r"relay \(rank 10\)"):
        test_a_module_has_a_rank_and_imports_only_from_below(bad)
    with pytest.raises(AssertionError, match="line 2: os"):
        test_a_pure_module_does_nothing_but_compute(bad)
    bad.write_text("from siemrelay.decoders import x\n")
    with pytest.raises(AssertionError, match=r"decoders\.x \(rank 2\)"):
        test_a_module_has_a_rank_and_imports_only_from_below(bad)
