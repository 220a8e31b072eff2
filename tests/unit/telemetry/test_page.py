"""The status page as a file: what it may load, who may frame it, what can be read on it."""

from __future__ import annotations

import base64
import hashlib
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.telemetry.page import page
from siemrelay.telemetry.rates import HISTORY_EVERY_S, History

HTML = page().body.decode()


def test_the_page_loads_nothing_from_elsewhere() -> None:
    links = re.findall(r"https?://[^\s\"']+", HTML)
    assert set(links) == {"http://www.w3.org/2000/svg"}  # the name of a namespace
    assert re.findall(r"\b(?:src|srcset|@import|url\()", HTML) == []


def test_the_policy_allows_just_the_pages_own_style_and_script() -> None:
    fields = dict(page().fields)
    policy = dict(
        part.strip().split(" ", 1) for part in fields["Content-Security-Policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
    for kind in ("script", "style"):
        (inner,) = re.findall(f"<{kind}>(.*?)</{kind}>", HTML, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        assert policy[f"{kind}-src"] == f"'sha256-{digest}'"
    assert "unsafe" not in fields["Content-Security-Policy"]
    assert not re.search(r"\s(?:style|on\w+)=", HTML)
    assert "innerHTML" not in HTML


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("text", "on"),
    [*((ink, on) for ink in ("ink", "dim", "accent") for on in ("ground", "card", "well")),
     *((tone, on) for tone in ("good", "warning", "bad") for on in ("card", f"{tone}-well"))],
)  # fmt: skip
def test_every_text_has_the_contrast_that_weak_eyes_need(scheme: int, text: str, on: str) -> None:
    """At least 4.5 to 1 (WCAG 2.2, 1.4.3)."""
    block = re.findall(r":root \{(.*?)\}", HTML, re.DOTALL)[scheme]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
    lighter, darker = sorted((luminance(colours[text]), luminance(colours[on])), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=400))
def test_the_history_is_an_hour_of_rates_that_add_up_to_what_was_counted(steps: list[int]) -> None:
    history, counts, now = History(), [0], 0.0
    history.sample(now, {"a": 0})
    for step in steps:
        now += HISTORY_EVERY_S
        counts.append(counts[-1] + step)
        history.sample(now - 1, {"a": 0, "b": 7})  # too early: not looked at
        history.sample(now, {"a": counts[-1]})
    expected = [round((after - before) / HISTORY_EVERY_S, 1) for before, after in pairwise(counts)]
    assert history.series() == {"a": expected[-180:]}


def test_the_history_of_a_gauge_is_its_values_and_a_part_that_is_gone_has_none() -> None:
    history = History(gauges=True)
    for at, values in enumerate([{"a": 5}, {"a": 7, "b": 2}, {"b": 3}]):
        history.sample(at * HISTORY_EVERY_S, values)
    assert history.series() == {"b": [2.0, 3.0]}
