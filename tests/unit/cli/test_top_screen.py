"""The screen of `siemrelay top`: it fits every terminal, and shows the sink that is picked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from siemrelay.cli.live.top_screen import SORTS, TopView, screen
from siemrelay.telemetry.log import Redactor
from siemrelay.telemetry.stats import SinkCounts, SinkStats, SourceStats, Stats
from siemrelay.telemetry.status import RelayReport, StatusReporter

REASON = "HTTP 401 接続拒否 " * 30


def report(sinks: int, sources: int = 2) -> RelayReport:
    stats = Stats(ready=True)
    for number in range(sources):
        stats.sources[f"source-{number}"] = SourceStats(f"source-{number}", 10**9)
    for number in range(sinks):
        state = ("up", "holding", "waiting", "paused", "disabled")[number % 5]
        name = f"sink-{number:03}-" + "x" * (number % 50)
        stats.sinks[name] = SinkStats(
            name, state, "" if state == "up" else REASON, backlog=number * 10**6,
            counts=SinkCounts(delivered=10**11), oldest_undelivered_at=float(number) or None,
            last_error=REASON, last_error_at=1.0, last_type="\x1b[2J\u202e",
        )  # fmt: skip
    stats.buffer.dead_letters = dict.fromkeys(stats.sinks, 1_000_000)
    return StatusReporter(stats, Redactor([])).status(0.0)


@given(
    st.integers(0, 60), st.integers(0, 30), st.integers(40, 220), st.integers(12, 70),
    st.sampled_from(list(SORTS)), st.integers(0, 59), st.booleans(), st.sampled_from(["", REASON]),
)  # fmt: skip
def test_every_line_fits_and_the_picked_sink_is_among_them(
    sinks: int, sources: int, width: int, height: int, sort: str, picked: int, opened: bool,
    message: str,
) -> None:  # fmt: skip
    found = report(sinks, sources)
    names = [sink.name for sink in found.sinks]
    view = TopView(sort, names[picked] if picked < sinks else "", opened)
    lines = screen(found, view, width, height, message)
    assert len(lines) == height
    assert max(cell_len(line.text) for line in lines) <= width
    assert not any(ord(character) < 32 for line in lines for character in line.text)
    assert lines[-1].text.startswith("q quit  s sort:")
    if view.picked and height >= 24:
        assert [line for line in lines if line.text.startswith(f"> {view.picked[:20]}")]


def test_the_columns_of_a_busy_relay_fit_80() -> None:
    lines = [line.text for line in screen(report(9), TopView(), 80, 50)]
    assert not [text for text in lines if text.startswith("  sink-") and text.endswith("…")]


@pytest.mark.parametrize(
    ("sort", "first"),
    [("as configured", 0), ("state", 1), ("backlog", 8), ("behind", 1), ("rate", 0), ("name", 0)],
)
def test_sinks_are_sorted_as_chosen(sort: str, first: int) -> None:
    found = report(9)
    assert TopView(sort).ordered(found)[0].name == found.sinks[first].name


def test_keys_pick_open_close_sort_and_end() -> None:
    found, view = report(3), TopView()
    names = [sink.name for sink in found.sinks]
    assert view.press("enter", found)
    assert not view.opened  # nothing is picked
    for key, picked in [("down", 0), ("down", 1), ("down", 2), ("down", 2), ("up", 1)]:
        assert view.press(key, found)
        assert view.picked == names[picked]
    view.press("enter", found)
    assert any("delivered" in line.text for line in screen(found, view, 80, 60))
    view.press("escape", found)
    assert (view.picked, view.opened) == (names[1], False)
    view.press("escape", found)
    assert view.picked == ""
    for sort in [*list(SORTS)[1:], "as configured"]:
        view.press("s", None)
        assert view.sort == sort
    assert not view.press("q", None)
