"""A sink's state and what the log has of it."""

from __future__ import annotations

import pytest
import trio
from structlog.testing import capture_logs

from siemrelay.pipeline.sink_status import SinkStatus
from siemrelay.sinks.contract import Refusal
from siemrelay.telemetry.stats import SinkStats

BUSY = "HTTP 429 try again"


class Lazy:
    """A sink whose sessions open nothing."""

    connects_lazily = True


@pytest.fixture
def stats() -> SinkStats:
    return SinkStats("s")


@pytest.fixture
def status(stats: SinkStats) -> SinkStatus:
    return SinkStatus("s", Lazy(), stats, lambda: 7)


async def test_a_receiver_that_limits_what_it_takes_is_one_line_in_the_log(
    status: SinkStatus, stats: SinkStats, autojump_clock: object
) -> None:
    """It takes a batch, refuses the next for some seconds, and so on for ten minutes."""
    status.note("up")
    with capture_logs() as logs:
        for pause in range(100):
            status.note("waiting", f"{BUSY} in {pause} s", throttled=True)
            assert (stats.state, stats.reason) == ("waiting", f"{BUSY} in {pause} s")
            await trio.sleep(6)
            status.note("up")
            assert (stats.state, stats.reason) == ("up", "")
        assert [line["event"] for line in logs] == ["sink waiting"]
        await trio.sleep(60)
        status.note("up")
        status.note("up")
    assert [line["event"] for line in logs] == ["sink waiting", "sink up"]


async def test_any_other_fault_while_throttled_is_news(status: SinkStatus) -> None:
    with capture_logs() as logs:
        status.note("waiting", BUSY, throttled=True)
        status.note("up")
        status.note("holding", "HTTP 401")
        status.note("holding", "HTTP 403")
    assert [line["event"] for line in logs] == ["sink waiting", "sink holding", "sink holding"]


async def test_a_sink_that_got_only_refusals_is_not_up(
    status: SinkStatus, stats: SinkStats
) -> None:
    refusal = Refusal(0, "400", "no such field")
    status.opened(quiet=False)
    assert (stats.state, stats.reason) == ("connecting", "")
    status.only_refused(refusal)
    assert stats.state == "waiting"
    assert "the last one with 400 no such field" in stats.reason
    status.note("up")
    status.only_refused(refusal)
    assert stats.state == "up"


async def test_connecting_is_no_line_in_the_log(status: SinkStatus, stats: SinkStats) -> None:
    with capture_logs() as logs:
        status.opened(quiet=False)
        status.note("waiting", "gone")
        status.opened(quiet=False)
        status.note("waiting", "still gone")
        assert (stats.state, stats.reason) == ("waiting", "still gone")
    assert [line["event"] for line in logs] == ["sink waiting"]
