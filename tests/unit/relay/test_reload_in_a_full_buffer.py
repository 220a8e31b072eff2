"""A reload while the buffer is full keeps nobody waiting, and is what makes room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
import trio
from structlog.testing import capture_logs

from siemrelay.buffer.retention import Retention
from siemrelay.cli.live.control_client import send
from siemrelay.config.load import Loaded, load_text
from siemrelay.relay.control import ReloadRequest
from siemrelay.relay.relay import Relay
from tests.support.daemon import until

CONFIG = """\
state_dir: {directory}/state
endpoint: {{listen: off}}
self_audit: no
shutdown_timeout: 100ms
buffer: {{max_size: {max_size}}}
sources: {{{source}}}
sinks: {{s: {{protocol: file, path: {directory}/out.json, format: raw}}}}
"""
SMALL, LARGE = "64MiB", "1GiB"


def has_room(retention: Retention, wanted_bytes: int) -> bool:
    return retention._stats.max_size_bytes == 1 << 30


async def eventually(condition: Callable[[], bool]) -> None:
    await trio.to_thread.run_sync(until, condition)


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    return tmp_path / "audit.json"


class Full:
    """A relay whose source has read a record for which there is no room, and a reload of it."""

    def __init__(self, directory: Path, audit: Path) -> None:
        self._directory, self._audit = directory, audit
        self._new: Loaded | None = None
        self.relay = Relay(self._loaded("a", "20ms", SMALL), read=lambda *_: self._new or missing())

    def _loaded(self, source: str, poll: str, max_size: str, more: str = "") -> Loaded:
        options = f"{source}: {{type: file, path: {self._audit}, poll: {poll}{more}}}"
        text = CONFIG.format(directory=self._directory, max_size=max_size, source=options)
        return load_text(text, "f.yaml", {})

    async def run(self) -> None:
        self._audit.write_text('{"id": "1"}\n')
        with patch.object(Retention, "has_room", has_room), capture_logs():
            await self.relay.run(signals=False)

    async def until_full(self) -> None:
        await eventually(lambda: self.relay.stats.buffer.full)

    async def reload(self, source: str, poll: str, max_size: str, more: str = "") -> list[str]:
        self._new = self._loaded(source, poll, max_size, more)
        state = self._directory / "state"
        answer = await trio.to_thread.run_sync(send, state, ReloadRequest())
        return answer.lines if not answer.done else []


def missing() -> Loaded:
    raise AssertionError("nothing is to be reloaded yet")


@pytest.fixture
def full(tmp_path: Path, audit: Path) -> Full:
    return Full(tmp_path, audit)


async def test_a_source_that_it_restarts_goes_on_once_there_is_room(
    full: Full, audit: Path, tmp_path: Path
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(full.run)
        await full.until_full()
        assert await full.reload("a", "30ms", SMALL) == []
        with audit.open("a") as file:
            file.write('{"id": "2"}\n')
        assert await full.reload("a", "30ms", LARGE) == []
        await eventually(lambda: full.relay.stats.sources["a"].records == 2)
        full.relay.stop()
    assert (tmp_path / "out.json").read_text() == '{"id": "1"}\n{"id": "2"}\n'


async def test_a_source_keeps_its_name_until_there_is_room_for_what_it_has_read(
    full: Full, tmp_path: Path
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(full.run)
        await full.until_full()
        (refused,) = await full.reload("b", "20ms", LARGE, ", renamed_from: a")
        assert refused.startswith("source a cannot be renamed now")
        assert await full.reload("a", "20ms", LARGE) == []
        await eventually(lambda: full.relay.stats.sources["a"].records == 1)
        assert await full.reload("b", "20ms", LARGE, ", renamed_from: a") == []
        full.relay.stop()
    assert (tmp_path / "out.json").read_text() == '{"id": "1"}\n'


async def test_a_stop_does_not_wait_for_a_source_that_it_restarted(full: Full) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(full.run)
        await full.until_full()
        assert await full.reload("a", "30ms", SMALL) == []
        full.relay.stop()
