"""The heap on huge pages: the same bytes, and nothing where the machine does not want that."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from siemrelay.relay import huge_pages
from siemrelay.relay.huge_pages import move_heap, use_huge_pages


def test_what_is_in_memory_is_the_same_on_huge_pages() -> None:
    held = [random.randbytes(1 << 22) for _ in range(4)]
    copies = [bytes(bytearray(each)) for each in held]
    assert use_huge_pages() % (2 << 20) == 0
    assert held == copies


def test_nothing_is_moved_where_the_administrator_has_turned_huge_pages_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = tmp_path / "enabled"
    setting.write_text("always madvise [never]\n")
    monkeypatch.setattr(huge_pages, "_SETTING", setting)
    assert use_huge_pages() == 0


def test_a_machine_without_huge_pages_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huge_pages, "_SETTING", tmp_path / "missing")
    assert use_huge_pages() == 0


async def test_the_heap_moves_once_when_the_start_is_over(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved_at = list[float]()

    def note() -> None:
        moved_at.append(trio.from_thread.run_sync(trio.current_time))

    monkeypatch.setattr(huge_pages, "use_huge_pages", note)
    start = trio.current_time()
    await move_heap()
    assert [at - start for at in moved_at] == [10.0]
