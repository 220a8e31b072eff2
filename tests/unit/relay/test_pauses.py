"""A pause holds at once; it is on disk as soon as that is possible."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from siemrelay.relay.pauses import Pauses


class Obstacle:
    """What makes every write fail, as a full disk does."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "paused.json.new"

    def put(self) -> None:
        self._path.mkdir()

    def remove(self) -> None:
        self._path.rmdir()


@pytest.fixture
def obstacle(tmp_path: Path) -> Obstacle:
    return Obstacle(tmp_path)


async def test_a_pause_that_cannot_be_stored_holds_and_is_stored_once_it_can_be(
    tmp_path: Path, obstacle: Obstacle
) -> None:
    obstacle.put()
    pauses = Pauses(tmp_path)
    with capture_logs() as log:
        assert await pauses.add("siem", "ada") == "Is a directory"
        assert "siem" in pauses
        assert "siem" not in Pauses(tmp_path)
        await pauses.store_pending()
        assert "siem" not in Pauses(tmp_path)
        obstacle.remove()
        await pauses.store_pending()
    assert "siem" in Pauses(tmp_path)
    assert [line["event"] for line in log] == [
        "cannot store which sinks are paused", "stored which sinks are paused",
    ]  # fmt: skip


async def test_a_resume_and_a_new_name_that_cannot_be_stored_hold(
    tmp_path: Path, obstacle: Obstacle
) -> None:
    pauses = Pauses(tmp_path)
    assert await pauses.add("old", "ada") is None
    assert await pauses.add("siem", "ada") is None
    obstacle.put()
    assert await pauses.remove("siem") == "Is a directory"
    pauses.take_over({"old": "new"})
    assert ("siem" in pauses, "old" in pauses, "new" in pauses) == (False, False, True)
    await pauses.keep_only([])
    assert "new" not in pauses
    assert {"siem", "old"} <= {name for name in ("siem", "old") if name in Pauses(tmp_path)}
