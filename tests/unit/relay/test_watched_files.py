"""Watching files costs a relay of many sinks nothing that grows with them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from siemrelay.config.load import load_text
from siemrelay.config.models import RelayConfig
from siemrelay.relay import watched_files
from siemrelay.relay.watched_files import WatchedFiles
from siemrelay.telemetry.stats import Stats


def config_of(sinks: int) -> RelayConfig:
    lines = "".join(f"  s{n}: {{protocol: tcp, server: 192.0.2.1}}\n" for n in range(sinks))
    text = f"state_dir: /nowhere\nsources:\n  a: {{type: stdin}}\nsinks:\n{lines}"
    return load_text(text, "f.yaml", {}).config


async def test_the_parts_that_name_files_are_looked_for_once_in_a_configuration(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    asked: list[Any] = []

    def pem_files(part: Any) -> list[Path]:
        asked.append(part)
        return []

    monkeypatch.setattr(watched_files, "pem_files", pem_files)
    reloader: Any = SimpleNamespace(config=config_of(3), tls_files={}, secret_files={})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(WatchedFiles(reloader, Stats()).run)
        await trio.sleep(60)
        assert len(asked) == 3 + 1
        reloader.config = config_of(5)
        await trio.sleep(60)
        assert len(asked) == 3 + 1 + 5 + 1
        nursery.cancel_scope.cancel()
