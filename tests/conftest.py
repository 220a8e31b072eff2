"""Options and fixtures of the whole suite."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.support import examples
from tests.support.daemon import Daemon


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also the long forms of long tests")


def pytest_configure(config: pytest.Config) -> None:
    examples.load("long" if config.getoption("--slow") else "short")
    # What a shell starts in the background ignores SIGINT, and programs would inherit that.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="the long form: run with --slow"))


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """Commands set the level of the log; the next test has that of the suite."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


MakeDaemon = Callable[..., Daemon]


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[MakeDaemon]:
    """Makes daemons, each in a directory of its own unless one is given, and puts them away."""
    made: list[Daemon] = []

    def make(sinks: dict[str, Any], *, directory: Path | None = None, **top: Any) -> Daemon:
        if directory is None:
            directory = tmp_path / f"relay{len(made)}"
            directory.mkdir()
        made.append(Daemon(directory, sinks, **top))
        return made[-1]

    yield make
    for daemon in made:
        daemon.close()
