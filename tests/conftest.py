"""Options and fixtures of the whole suite."""

from __future__ import annotations

import os
import random
import signal
import stat
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
import trustme

from tests.support import examples
from tests.support.daemon import Daemon


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also the long forms of long tests")


def pytest_configure(config: pytest.Config) -> None:
    examples.load("long" if config.getoption("--slow") else "short")
    # Receivers at the loopback are reached without the proxy of this machine.
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    # What a shell starts in the background ignores SIGINT, and programs would inherit that.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="the long form: run with --slow"))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Refuse a module that opens sockets when it is imported.

    They stay open until the interpreter exits, when no test can fail for them any more. What a
    test leaves open fails that test: `filterwarnings` makes an error of its ResourceWarning.
    """
    before = _open_sockets()
    report = yield
    if isinstance(collector, pytest.Module) and (opened := _open_sockets() - before):
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} opens sockets when it is imported: {opened}"
    return report


def _open_sockets() -> set[int]:
    """The descriptors of this process that are sockets."""
    opened = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the descriptor with which the folder was read is closed
            if stat.S_ISSOCK(os.fstat(int(link.name)).st_mode):
                opened.add(int(link.name))
    return opened


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Issues certificates that a test may trust."""
    return trustme.CA()


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


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The test's own, so that CI decides the same twice; with `--slow` another one every time.

    SIEMRELAY_TEST_SEED in the environment repeats what a test has printed.
    """
    if not (chosen := int(os.environ.get("SIEMRELAY_TEST_SEED", "0"))):
        slow = request.config.getoption("--slow")
        chosen = random.randrange(1, 1 << 32) if slow else zlib.crc32(request.node.nodeid.encode())
    print(f"SIEMRELAY_TEST_SEED={chosen} repeats this")
    return chosen
